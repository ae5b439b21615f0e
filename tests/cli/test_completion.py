"""Completion of commands and flags, in a real shell where there is one."""

import shutil
import subprocess

import pytest

from jaxrl_srpo.cli import completion
from jaxrl_srpo.cli.main import COMMANDS
from jaxrl_srpo.errors import UserError


@pytest.fixture(scope="module")
def bash_script() -> str:
    return completion.script("bash", tuple(COMMANDS.values()))


def completed(script: str, *typed: str) -> list[str]:
    """What bash offers for the last of the words typed."""
    words = " ".join(f"'{word}'" for word in ("jaxrl-srpo", *typed))
    ask = f'COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _jaxrl_srpo; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["tr"], ["train"]),
        (["da"], ["data"]),
        (["data", "pl"], ["plot"]),
        (["train", "--budg"], ["--budget="]),
        (["train", "--awac_lam"], ["--awac_lambda="]),
        (["watch", "--on"], ["--once"]),
        (["data", "make", "--st"], ["--steps="]),
        # The shell itself completes files.
        (["watch", "ru"], []),
        (["train", "--out", "ru"], []),
    ],
)
def test_bash_offers_commands_and_flags(bash_script: str, typed: list[str], offered: list[str]) -> None:
    assert completed(bash_script, *typed) == offered


def test_every_command_is_offered(bash_script: str) -> None:
    assert completed(bash_script, "") == list(dict.fromkeys(name.split()[0] for name in COMMANDS))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_theirs(shell: str) -> None:
    script = completion.script(shell, tuple(COMMANDS.values()))
    assert all(name.split()[-1] in script for name in COMMANDS)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n", "/dev/stdin"], input=script, text=True, check=True)


def test_an_unknown_shell() -> None:
    with pytest.raises(UserError, match="completion tcsh: choose one of bash, zsh, fish"):
        completion.script("tcsh", ())
