"""Manifests: every change of a file is found and named."""

import json
import pathlib

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import manifest, sealed


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "one").write_bytes(b"numbers")
    (tmp_path / "deep" / "two").write_bytes(b"")
    manifest.write(tmp_path, {"step": 3})
    return tmp_path


def test_a_whole_directory_has_no_problem(directory: pathlib.Path) -> None:
    assert manifest.problem(directory) == ""
    found = manifest.read(directory)
    assert found is not None
    assert set(found.files) == {"one", "deep/two"}
    assert found.about == {"step": 3}


def test_a_directory_without_a_manifest_has_none_known(tmp_path: pathlib.Path) -> None:
    assert manifest.read(tmp_path) is None
    assert manifest.problem(tmp_path) == ""


def test_chosen_files_alone_belong_to_it(directory: pathlib.Path) -> None:
    manifest.write(directory, files=[directory / "one"])
    (directory / "deep" / "two").write_bytes(b"other")
    assert manifest.problem(directory) == ""


def test_changed_and_missing_files_are_named(directory: pathlib.Path) -> None:
    (directory / "one").write_bytes(b"numbert")
    assert manifest.problem(directory).startswith("one is not what was written")
    (directory / "one").unlink()
    assert "one cannot be read (No such file" in manifest.problem(directory)


@pytest.mark.parametrize("content", ['{"files": {}}', "[]", "", '{"files": {"one": 1}, "about": 2}'])
def test_a_manifest_that_is_none_is_named(directory: pathlib.Path, content: str) -> None:
    (directory / manifest.NAME).write_text(content)
    assert "manifest.json is not what was written" in manifest.problem(directory)
    with pytest.raises(UserError, match=r"manifest\.json"):
        manifest.read(directory)


@pytest.mark.parametrize("name", ["/etc/hostname", "../one", "a\0b"])
def test_files_elsewhere_are_not_read(directory: pathlib.Path, name: str) -> None:
    (directory / manifest.NAME).write_text(sealed.text_of({"files": {name: "00"}, "about": {}}))
    assert "which is no file of it" in manifest.problem(directory)


def test_a_changed_note_is_found(directory: pathlib.Path) -> None:
    content = json.loads((directory / manifest.NAME).read_text())
    content["about"]["step"] = 4
    (directory / manifest.NAME).write_text(json.dumps(content))
    assert "manifest.json is not what was written" in manifest.problem(directory)
