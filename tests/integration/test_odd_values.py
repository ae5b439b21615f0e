"""Every flag with values that nobody means: one line and exit code 2 with nothing left behind, or a sound start."""

import json
import os
import pathlib
import random
from types import ModuleType

import jax
import pytest
from absl import flags

import local
import ray_cluster
import slurm
from jaxrl_srpo.cli import main, setting_flags, train_commands
from jaxrl_srpo.cli.command_line import exit_with
from tests import synthetic

ODD = (
    *("", " ", "nan", "inf", "-inf", "-1", "-0", "0", "0.5", "1.5", "1e23", "1e-320", "1e39", "1e400", "0x10"),
    *("99999999999", "2147483648", "9" * 4400, "0:99999999999", "3:1", "::", ",", "1,,2", "1,1", "true", "None"),
    *(
        "text",
        "ä",
        "²",
        "\u202e",
        "\U0001f980",
        "x" * 5000,
        "a/" + "x" * 5000,
        "1\n2",
        "~no-such-user/x",
        "..",
        "http://",
    ),
    *("%s", "{}", "-", "*"),
)
PER_FLAG = 8


def sweep_flags() -> list[str]:
    values = flags.FlagValues()
    train_commands.TRAIN.define(values)
    setting_flags.define_settings(values, setting_flags.methods_for_flags([]))
    return sorted(set(values) - {"dataset"})


def ends(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> int:
    """The exit code of a command, which is 0, or 2 after one line."""
    with pytest.raises(SystemExit) as stop:
        main.run(arguments)
    assert_one_line(capsys, "jaxrl-srpo", stop.value.code, arguments)
    return int(stop.value.code or 0)


def assert_one_line(capsys: pytest.CaptureFixture[str], program: str, code: object, arguments: list[str]) -> None:
    err = capsys.readouterr().err
    told = (code, err[-300:], [argument[:50] for argument in arguments])
    assert code in (0, 2), told
    if code:
        *before, last = err.splitlines()
        assert last.startswith(f"{program}: "), told
        assert len(last) < 3000, told
        assert not any("Traceback" in line for line in before), told


@pytest.fixture
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty folder to be in, where nothing can be downloaded; JAX, which has begun, keeps its settings."""
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    # What is written to `..` must not be found by other tests.
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("JAXRL_SRPO_CACHE", "MINARI_DATASETS_PATH"):
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setenv("JAXRL_SRPO_MIRROR", "not-an-address")
    return folder


def test_flags_of_a_sweep(here: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = synthetic.write_pendulum(here / "swing.hdf5")
    choose = random.Random(0)
    codes = []
    for number, (flag, value) in enumerate(
        (flag, value) for flag in sweep_flags() for value in choose.sample(ODD, PER_FLAG)
    ):
        out = here / f"run{number}"
        arguments = ["prepare", f"--datasets={data}", f"--out={out}", "--noevaluate", "--seeds=0", f"--{flag}={value}"]
        codes.append(ends(capsys, arguments))
        assert out.exists() == (codes[-1] == 0) or flag == "out", arguments
        if codes[-1] == 0 and flag != "out":
            json.loads(
                (out / "sweep.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in sweep.json")
            )
    assert {0, 2} == set(codes)


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        *((["work", "nowhere"], flag) for flag in ("algorithm", "cpu_devices", "num_processes", "process_id")),
        (["work", "nowhere", "--num_processes=2", "--process_id=0"], "coordinator_address"),
        *((["evaluate", "nowhere"], flag) for flag in ("episodes", "artefacts", "algorithm")),
        *((["watch", "nowhere"], flag) for flag in ("interval", "once", "algorithm")),
        *((["export", "nowhere"], flag) for flag in ("to", "follow", "algorithm")),
        (["methods"], "algorithm"),
        *((["data", "info", "nowhere.hdf5"], flag) for flag in ("mirror", "checksums", "env", "allow_invalid_data")),
        *((["data", "plot", "nowhere.hdf5"], flag) for flag in ("mirror", "out", "env")),
        *((["data", "download", "hopper-medium-v2"], flag) for flag in ("checksums", "out", "steps")),
        *((["data", "make", "regenerated/nothing/medium-v0"], flag) for flag in ("steps", "transitions", "seed")),
    ],
)
def test_flags_of_other_commands(
    command: list[str], flag: str, here: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {ends(capsys, [*command, f"--{flag}={value}"]) for value in ODD}
    assert codes == ({0, 2} if command == ["methods"] else {2})


@pytest.mark.parametrize(
    "command",
    [
        *([one] for one in ("work", "evaluate", "report", "watch", "export")),
        *(["data", one] for one in ("info", "plot", "make")),
    ],
)
def test_what_is_no_run_or_dataset(command: list[str], here: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {ends(capsys, [*command, value]) for value in ODD if value != "-"} == {2}
    # Minari makes its folder when it is asked where it is.
    assert os.listdir(here) in ([], ["MINARI_DATASETS_PATH"])


@pytest.mark.parametrize("launcher", [local, slurm, ray_cluster])
def test_flags_of_launchers(launcher: ModuleType, here: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = ["workers", "restarts", "cpu_devices", "algorithm"]
    known += {slurm: ["minutes", "cpus", "gpus"], ray_cluster: ["cpus", "gpus", "tpus", "address"]}.get(launcher, [])
    for flag in known:
        for value in ODD:
            with pytest.raises(SystemExit) as stop:
                exit_with("launch", launcher.main, ["nowhere", f"--{flag}={value}"])
            assert_one_line(capsys, "launch", stop.value.code, [flag, value])
            assert stop.value.code == 2
