"""`jaxrl-srpo data` on a real file; its mistakes are in `test_main`."""

import dataclasses
import hashlib
import pathlib

import numpy as np
import pytest
from absl import flags

from jaxrl_srpo.cli import main
from jaxrl_srpo.data import d4rl, mirrors
from jaxrl_srpo.errors import UserError
from tests import synthetic
from tests.data.swing import swing
from tests.data.test_download import serving
from tests.data.test_recording import write_with_resets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "swing.hdf5")


def test_info_says_what_is_in_a_file(dataset: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["data", "info", str(dataset), "--env=Pendulum-v1"])
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dataset", "swing"] in said
    assert ["environment", "Pendulum-v1"] in said


def test_info_reads_an_archive_of_numpy_too(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "mine.npz", **swing())
    main.main(["data", "info", str(tmp_path / "mine.npz")])
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dataset", "mine"] in said
    assert ["environment", "Pendulum-v1"] in said


def test_plot_draws_it_where_it_is_told(
    dataset: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main.main(["data", "plot", str(dataset)])
    main.main(["data", "plot", str(dataset), "--out=other.png"])
    assert capsys.readouterr().out.splitlines() == ["wrote swing.png", "wrote other.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("swing.png", "other.png"))


def test_a_picture_that_cannot_be_written_is_one_line(dataset: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for out in (tmp_path / "absent" / "x.png", tmp_path):
        with pytest.raises(UserError, match=rf"--out={out}: cannot be written: "):
            main.main(["data", "plot", str(dataset), f"--out={out}"])


def test_reset_rows_go_where_they_are_told_to(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_with_resets(tmp_path / "mine.hdf5")
    main.main(["data", "info", str(tmp_path / "mine.hdf5")])
    assert "--drop_reset_rows leaves them out" in capsys.readouterr().out
    main.main(["data", "info", str(tmp_path / "mine.hdf5"), "--drop_reset_rows"])
    assert "5 reset rows are left out" in capsys.readouterr().out


def test_download_verifies_against_a_file_of_checksums(
    dataset: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path / "cache"))
    sums = tmp_path / "sums"
    with serving() as server:
        server.content = dataset.read_bytes()
        sums.write_text(f"{'0' * 64}  hopper_medium-v2.hdf5\n")
        command = ["data", "download", "hopper-medium-v2", f"--mirror={server.url}", f"--checksums={sums}"]
        with pytest.raises(UserError, match="what came has SHA-256"):
            main.main(command)
        sums.write_text(f"{hashlib.sha256(server.content).hexdigest()}  hopper_medium-v2.hdf5\n")
        main.main(command)
    path = tmp_path / "cache" / "gym_mujoco_v2" / "hopper_medium-v2.hdf5"
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_bytes() == dataset.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["download", "D4RL/door/human-v2"],
            "--checksums=sums: is for files of D4RL and OGBench; D4RL/door/human-v2 is Minari's",
        ),
        (["download", "hopper-medium-v2"], "sums: cannot be read as checksums: .*No such file"),
    ],
)
def test_checksums_where_they_make_no_sense(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main.main(["data", *arguments, "--checksums=sums"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "hopper-medium-v2", "--checksums=sums"],
        ["info", "--all=d4rl-paper"],
        ["plot", "hopper-medium-v2", "--steps=3"],
        ["make", "pointmaze/umaze", "--mirror=http://here"],
        ["download", "--all=d4rl-paper", "--steps=3"],
    ],
)
def test_flags_of_other_commands_are_unknown(arguments: list[str]) -> None:
    name = arguments[-1].split("=")[0].removeprefix("--")
    with pytest.raises(flags.UnrecognizedFlagError, match=f"Unknown command line flag '{name}'"):
        main.main(["data", *arguments])


@pytest.mark.parametrize("command", ["info", "plot", "make", "download"])
def test_every_command_has_help_of_its_own(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["data", command, "--help"])
    own = capsys.readouterr().out
    main.main(["data", "--help"])
    assert own.startswith(f"usage: jaxrl-srpo data {command} ")
    assert f"  jaxrl-srpo data {command} NAME" in capsys.readouterr().out
    assert ("--steps" in own) == (command == "make")
    assert ("--allow_invalid_data" in own or "--[no]allow_invalid_data" in own) == (command in ("info", "plot"))
    assert all(len(line) <= 120 for line in own.splitlines())


def test_a_file_to_write_is_for_ogbench_alone() -> None:
    with pytest.raises(UserError, match="--out: is for `data make ogbench/NAME` only"):
        main.main(["data", "make", "pointmaze/umaze", "--out=here"])


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty cache, no mirror, and repetitions that do not wait."""
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXRL_SRPO_MIRROR", raising=False)
    monkeypatch.setattr("jaxrl_srpo.data.download.time.sleep", lambda seconds: None)
    return tmp_path / "cache"


FOLDER, HOPPER = "gym_mujoco_v2", "hopper_medium-v2.hdf5"


def place_servers(by: str, roots: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes servers those that are asked, in this order, and gives the flags that are needed for it."""
    if by == "flag":
        return [f"--mirror={','.join(roots)}"]
    if by == "variable":
        monkeypatch.setenv("JAXRL_SRPO_MIRROR", ",".join(roots))
        return []
    entry, urls = d4rl.entry, mirrors.public_addresses(f"{FOLDER}/{HOPPER}", roots[:-1], roots[-1])
    monkeypatch.setattr(d4rl, "entry", lambda name: dataclasses.replace(entry(name), urls=urls))
    return []


@pytest.mark.parametrize("by", ["flag", "variable", "public"])
def test_the_right_file_comes_from_whichever_server_has_it(
    dataset: pathlib.Path,
    cache: pathlib.Path,
    by: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of D4RL's server, which is down, one with other bytes, and a copy without folders."""
    with serving() as down:
        pass
    with serving() as wrong, serving(folders=False) as flat:
        wrong.content, flat.content = b"<html>Please log in</html>", dataset.read_bytes()
        # Among the public addresses D4RL's own is the last.
        order = [wrong.url, flat.url, down.url] if by == "public" else [down.url, wrong.url, flat.url]
        main.main(["data", "download", "hopper-medium-v2", *place_servers(by, order, monkeypatch)])
        assert [path for path, _ in flat.asked] == [f"/{FOLDER}/{HOPPER}", f"/{HOPPER}"]
        assert {path for path, _ in wrong.asked} == {f"/{FOLDER}/{HOPPER}", f"/{HOPPER}"}
    assert capsys.readouterr().out == f"{cache / FOLDER / HOPPER}\n"
    assert (cache / FOLDER / HOPPER).read_bytes() == dataset.read_bytes()
    assert sorted(path.name for path in (cache / FOLDER).iterdir()) == [HOPPER, f"{HOPPER}.lock"]


@pytest.mark.parametrize("by", ["flag", "variable", "public"])
def test_where_no_server_has_it_one_line_says_what_to_do(
    dataset: pathlib.Path, cache: pathlib.Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as down:
        pass
    with serving() as wrong:
        wrong.content = b"<html>Please log in</html>"
        flags = place_servers(by, [wrong.url, down.url], monkeypatch)
        with pytest.raises(UserError) as caught:
            main.main(["data", "download", "hopper-medium-v2", *flags])
    message = str(caught.value)
    assert "\n" not in message
    assert f"from {wrong.url}/{FOLDER}/{HOPPER}: what came is no HDF5 file, it begins with b'<html>" in message
    assert f"from {down.url}/{FOLDER}/{HOPPER}: " in message
    assert "name a mirror (--mirror=URL or JAXRL_SRPO_MIRROR), or put the file at" in message
    assert str(cache / FOLDER / HOPPER) in message
    assert not (cache / FOLDER / HOPPER).exists()


def test_all_files_of_the_paper_go_on_after_a_failure(
    dataset: pathlib.Path, cache: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, rest = d4rl.PAPER[0], d4rl.PAPER[1:]
    with serving(plan=["busy"] * 10) as server:
        server.content = dataset.read_bytes()
        command = ["data", "download", "--all=d4rl-paper", f"--mirror={server.url}"]
        with pytest.raises(UserError, match=rf"1 of the 15 files of d4rl-paper are missing: {first}; the same command"):
            main.main(command)
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith(f"{first}: missing: cannot download")
        assert said[1:] == [f"{name}: {cache / d4rl.entry(name).path}" for name in rest]
        asked = len(server.asked)
        main.main(command)
        assert len(server.asked) == asked + 1
    assert len(capsys.readouterr().out.splitlines()) == 15


def test_a_server_that_is_down_is_not_asked_fifteen_times(
    cache: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as down:
        pass
    with pytest.raises(UserError, match="15 of the 15 files"):
        main.main(["data", "download", "--all=d4rl-paper", f"--mirror={down.url}"])
    said = capsys.readouterr().out.splitlines()
    assert "refused" in said[0]
    assert all("the server did not answer for another file" in line for line in said[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "--all=everything"], "--all=everything: choose one of d4rl-paper"),
        (["download", "hopper-medium-v2", "--all=d4rl-paper"], "--all: fetches a group; hopper-medium-v2 is one"),
        (["download", "--all=d4rl-paper", "--mirror=here"], "the address 'here' must start with http"),
    ],
)
def test_all_where_it_makes_no_sense(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main.main(["data", *arguments])
