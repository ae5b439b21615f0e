"""What every exported file says about its policy, as JSON inside the file."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.facts import require_environment
from jaxrl_srpo.errors import UserError, first_line
from jaxrl_srpo.io.typed import build
from jaxrl_srpo.nn.noise import Columns

KEY = "jaxrl_srpo"
"""The name of the metadata in a file."""
VERSION = 1
Format = Literal["stablehlo", "onnx", "npz"]
_LARGEST_SIZE = 10**6


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Where a policy comes from and what it takes and gives.

    Attributes:
      format: of the file.
      version: of this record.
      dataset: name in the run's tables.
      algorithm: word of the policy in the run's tables.
      seed: of the member.
      settings: of the member, by flag.
      swept: the flags of those settings that the run has several values of.
      chosen_by: why this member, in words.
      observation_size: width of an observation.
      action_size: width of an action.
      action_low: [action_size] lower bounds, in the environment's units.
      action_high: [action_size] upper bounds.
      observation_keys: entries of dictionary observations that make a vector; empty if the data had vectors.
      environment: where it was evaluated, see `EnvironmentSpec.to_json`; None if unknown.
      noise: columns of the second input in their order, as {"kind": "normal" or "gumbel", "size": n}; empty for a
        policy that draws nothing.
      address: of the result in the run's artefacts.
      fingerprint: of the dataset's transitions.
      versions: of the packages that wrote the file.
      commit: of the checkout that wrote it; empty outside one.
      layers: of an npz file, activations of its layers in their order; else empty.
    """

    format: Format
    dataset: str
    algorithm: str
    seed: int
    settings: dict[str, Any]
    swept: list[str]
    chosen_by: str
    observation_size: int
    action_size: int
    action_low: list[float]
    action_high: list[float]
    observation_keys: list[str]
    environment: dict[str, Any] | None
    noise: list[Any]
    address: str
    fingerprint: str
    versions: dict[str, str]
    commit: str
    layers: list[str] = dataclasses.field(default_factory=list)
    version: int = VERSION

    @property
    def environment_spec(self) -> EnvironmentSpec | None:
        """Where it was evaluated; None if unknown."""
        return None if self.environment is None else EnvironmentSpec.from_json(self.environment)

    @property
    def columns(self) -> list[Columns]:
        """The columns of noise that it acts by."""
        return [Columns(one["kind"], one["size"]) for one in self.noise]

    @property
    def noise_size(self) -> int:
        """Their number."""
        return sum(one.size for one in self.columns)


def seal(metadata: Metadata, payload: Iterable[bytes]) -> str:
    """The metadata as JSON text, with the SHA-256 of themselves and of the payload."""
    values = dataclasses.asdict(metadata)
    return json.dumps({**values, "sha256": _digest(values, payload)}, indent=1)


def unseal(text: str | bytes, payload: Iterable[bytes], source: str) -> Metadata:
    """The metadata of a file, whose payload is compared with them.

    Raises:
      UserError: they are no metadata, or they or the payload are not what was written.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source}: its metadata are not valid JSON ({first_line(error)}); export it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{source}: its metadata are no JSON object; export it again")
    if values.get("version") != VERSION:
        raise UserError(f"{source}: a policy of format version {values.get('version')!r}; this package reads {VERSION}")
    if values.pop("sha256", None) != _digest(values, payload):
        raise UserError(f"{source} is damaged or was changed: its SHA-256 is not that of its metadata; export it again")
    return _checked(build(Metadata, values, source), source)


def _checked(metadata: Metadata, source: str) -> Metadata:
    """Metadata whose parts fit each other."""
    if metadata.environment is not None:
        require_environment(metadata.environment, f"{source}: 'environment'")
    sizes = {len(metadata.action_low), len(metadata.action_high), metadata.action_size}
    if len(sizes) > 1 or not all(1 <= n <= _LARGEST_SIZE for n in (metadata.action_size, metadata.observation_size)):
        raise UserError(f"{source}: its sizes do not agree; export it again")
    for one in metadata.noise:
        known = isinstance(one, Mapping) and one.get("kind") in ("normal", "gumbel")
        if not known or not isinstance(one.get("size"), int) or not 1 <= one["size"] <= _LARGEST_SIZE:
            raise UserError(f"{source}: its noise is not described as it should be; export it again")
    return metadata


def _digest(values: Mapping[str, Any], payload: Iterable[bytes]) -> str:
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for part in payload:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()
