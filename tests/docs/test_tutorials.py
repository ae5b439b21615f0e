"""The tutorials run from top to bottom, at toy sizes."""

import pathlib
import re
from typing import Any

import numpy as np
import pytest

from tests import synthetic

TUTORIALS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "tutorials"
OWN = {"plain_steps": 8, "td3_bc_steps": 8, "td3_bc_width": 8, "td3_bc_batch_size": 16}


def run(name: str, size: dict[str, Any], *changes: tuple[str, str]) -> dict[str, Any]:
    """Runs a tutorial with settings of another size, and with some of its words replaced; returns its variables."""
    code, found = re.subn(r"^(size\b.*?) = .*$", rf"\1 = {size!r}", (TUTORIALS / f"{name}.py").read_text(), flags=re.M)
    assert found == 1
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    variables: dict[str, Any] = {"__name__": name}
    exec(compile(code, name, "exec"), variables)
    return variables


def test_train_and_choose(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="pandas is missing: pip install -e '.[pandas]'")
    monkeypatch.chdir(tmp_path)
    path = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    found = run(
        "train_and_choose", synthetic.TINY, ("pointmaze/umaze", str(path)), ("episodes=12", "episodes=12, fqe_steps=8")
    )
    assert set(found["worst"].index) == {0.01, 0.03}
    assert found["worst"][found["beta"]] == found["worst"].max()
    assert found["steps"] == 200


def test_own_data_and_method(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = run("own_data_and_method", OWN | {"episodes": 1}, ("episodes = 20", "episodes = 2"))
    assert len(found["data"].rewards) == 2 * 199
    assert {"swing"} <= {row.dataset for row in found["table"]}
    assert {"plain", "td3_bc"} <= {row.algorithm for row in found["table"]}
    (action,) = np.asarray(found["policy"](found["arrays"]["observations"][0]))
    assert -2.0 <= action <= 2.0
