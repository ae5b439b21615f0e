"""Options survive a JSON file, for workers anywhere."""

import json
import pathlib
from typing import Any

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.runs.options import Options


def test_they_come_back_as_they_were_but_for_tracking(tmp_path: pathlib.Path) -> None:
    options = Options(tmp_path, "Pendulum-v1", False, True, "https://example.org", "vmap", 3.0, 2, ("wandb",))
    again = Options.from_json(json.loads(json.dumps(options.to_json())))
    assert again == Options(tmp_path, "Pendulum-v1", False, True, "https://example.org", "vmap", 3.0, 2)


def test_what_an_older_file_lacks_is_at_its_default() -> None:
    assert Options.from_json({}) == Options()
    assert Options.from_json({"evaluate": False}) == Options(evaluate=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint_seconds": float("nan")}, "--checkpoint_seconds=nan: must be a finite number, not negative"),
        ({"checkpoint_seconds": float("inf")}, "--checkpoint_seconds=inf: must be"),
        ({"checkpoint_seconds": -1.0}, "--checkpoint_seconds=-1.0: must be"),
        ({"members_per_population": -1}, "--members_per_population=-1: must not be negative"),
        ({"mirror": "example.org"}, "--mirror or JAXRL_SRPO_MIRROR: the address 'example.org' must start with http"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_a_relative_folder_is_kept_whole() -> None:
    assert pathlib.Path(Options(artefacts=pathlib.Path("shared")).to_json()["artefacts"]).is_absolute()


def test_every_worker_reads_the_same_data() -> None:
    options = Options(
        environment="Pendulum-v1", allow_invalid_data=True, mirror="https://example.org", drop_reset_rows=True
    )
    assert Options.from_json(json.loads(json.dumps(options.to_json()))).reading() == {
        "mirror": "https://example.org",
        "allow_invalid": True,
        "env": "Pendulum-v1",
        "drop_reset_rows": True,
    }
