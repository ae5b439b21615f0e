"""Metadata come back as they were; what was changed is refused by one line that names the file."""

import dataclasses
import json
from typing import Any

import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export.metadata import Metadata, seal, unseal
from jaxrl_srpo.methods import idql
from tests.export import actors

METADATA = actors.metadata(actors.program(idql.METHOD, idql.METHOD.stages[-1], actors.SPACES["uneven"]), "onnx")
PAYLOAD = [b"one", b"two"]


def test_a_round_trip() -> None:
    assert unseal(seal(METADATA, PAYLOAD), PAYLOAD, "file") == METADATA
    assert METADATA.environment_spec == EnvironmentSpec("Pendulum-v1")
    assert METADATA.noise_size == sum(one.size for one in METADATA.columns) > 0


@pytest.mark.parametrize("payload", [[b"one", b"twx"], [b"onet", b"wo"], [b"one"], [b"two", b"one"]])
def test_another_payload_is_noticed(payload: list[bytes]) -> None:
    with pytest.raises(UserError, match=r"file is damaged or was changed: its SHA-256"):
        unseal(seal(METADATA, PAYLOAD), payload, "file")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", 4, "SHA-256"),
        ("action_low", [-9.0, -1.0, -1.0], "SHA-256"),
        ("version", 2, "format version 2; this package reads 1"),
    ],
)
def test_edited_metadata_are_noticed(name: str, value: Any, message: str) -> None:
    edited = json.dumps(json.loads(seal(METADATA, PAYLOAD)) | {name: value})
    with pytest.raises(UserError, match=message):
        unseal(edited, PAYLOAD, "file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_low": [0.0]}, "sizes do not agree"),
        ({"observation_size": 0}, "sizes do not agree"),
        ({"noise": [{"kind": "cauchy", "size": 1}]}, "noise is not described"),
        ({"noise": [{"kind": "normal", "size": -1}]}, "noise is not described"),
        ({"noise": [3]}, "noise is not described"),
        ({"seed": "three"}, "'seed' is 'three', should be a whole number"),
        ({"environment": {"id": 3}}, "'id' is 3, should be text"),
    ],
)
def test_sealed_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    nonsense: Metadata = dataclasses.replace(METADATA, **changes)
    with pytest.raises(UserError, match=message):
        unseal(seal(nonsense, PAYLOAD), PAYLOAD, "file")


@pytest.mark.parametrize(("text", "message"), [("{", "valid JSON"), ("[]", "no JSON object"), ("{}", "version None")])
def test_what_is_no_metadata_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"file.*{message}"):
        unseal(text, PAYLOAD, "file")
