"""`export-policy` on the command line."""

import pathlib
import zipfile

import absl.flags
import pytest

import jaxrl_srpo
from jaxrl_srpo.cli import main
from jaxrl_srpo.errors import UserError

ARCHIVE = pathlib.Path(__file__).parents[1] / "old_run.zip"


@pytest.fixture
def old_run(tmp_path: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "old_run"


def test_it_writes_the_member_of_the_flags(
    old_run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy.npz"
    flags = [f"--out={out}", "--format=npz", "--algorithm=srpo", "--beta=0.3", "--seed=0"]
    main.main(["export-policy", str(old_run), *flags])
    assert capsys.readouterr().out.startswith(f"wrote {out}: differs from JAX by at most ")
    policy = jaxrl_srpo.load_policy(out)
    assert not isinstance(policy, jaxrl_srpo.Policy)
    assert policy.metadata.settings["beta"] == 0.3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--out: is required; for instance --out=policy.onnx"),
        (["--out=x", "--beta=9"], "a member with beta=9.0 does not exist"),
        (["--out=x", "--format=npz", "--algorithm=bc"], "--format=npz: holds deterministic networks"),
    ],
)
def test_bad_flags_are_one_line(old_run: pathlib.Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        main.main(["export-policy", str(old_run), *flags])


def test_a_setting_that_is_no_number(old_run: pathlib.Path) -> None:
    with pytest.raises(absl.flags.IllegalFlagValueError, match="--beta=big"):
        main.main(["export-policy", str(old_run), "--out=x", "--beta=big"])


def test_its_help_names_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["export-policy", "--help"])
    text = capsys.readouterr().out
    assert "onnx|stablehlo|npz" in text
    assert max(map(len, text.splitlines())) <= 120
