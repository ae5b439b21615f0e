"""Modules that a person names."""

import pathlib
import sys

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.modules import import_named


def test_a_module_of_the_current_folder_is_imported(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "module_of_a_test.py").write_text("ANSWER = 42\n")
    assert import_named("module_of_a_test", "--env=module_of_a_test:X-v0").ANSWER == 42
    sys.modules.pop("module_of_a_test")


@pytest.mark.parametrize("module", ["no_such_module", "json.no_such_module", "", "..json"])
def test_a_module_that_is_nowhere_is_one_line(module: str) -> None:
    with pytest.raises(UserError, match=f"^--env={module}:X-v0: .*; modules are looked for here") as raised:
        import_named(module, f"--env={module}:X-v0")
    assert "\n" not in str(raised.value)
