"""Writes the policy of a member of a run as a file, after a look whether it acts as JAX does."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import npz, onnx, stablehlo
from jaxrl_srpo.export.loading import FilePolicy
from jaxrl_srpo.export.metadata import Format, Metadata
from jaxrl_srpo.export.program import Program, program_of
from jaxrl_srpo.export.run import draw
from jaxrl_srpo.io.files import errors_told, write_atomically
from jaxrl_srpo.runs.policies import Found
from jaxrl_srpo.runs.provenance import commit, versions
from jaxrl_srpo.runs.sweep import Member

CHECKED = 256
"""Observations on which a file is compared with JAX before it is written."""
TOLERANCE = 1e-6
"""Largest difference, as a share of the range of actions."""
WRITERS: dict[str, Callable[[Program, Metadata], bytes]] = {
    "stablehlo": stablehlo.write,
    "onnx": onnx.write,
    "npz": npz.write,
}
"""What writes each format."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How a file's actions differ from those of JAX, as shares of the range of actions.

    Attributes:
      largest: difference of any action, but for the rows of `elsewhere`.
      tolerance: what is allowed: 1e-6; of a policy that draws, ten times what JAX's own actions change by with the last
        bit of its inputs, if that is more.
      elsewhere: share of the observations whose action is another one altogether, as where two candidates of a policy
        are equally good.
    """

    largest: float
    tolerance: float
    elsewhere: float

    @property
    def holds(self) -> bool:
        """Whether the file is the policy."""
        return self.largest <= self.tolerance and self.elsewhere <= 0.01


def export(found: Found, format: Format, out: pathlib.Path) -> Agreement:
    """Writes a file, whole or not at all.

    Args:
      found: the member.
      format: of the file.
      out: where it goes; one that is there is replaced.

    Raises:
      UserError: the format cannot hold the policy, the file would not act as JAX does, or cannot be written.
    """
    facts = found.run.facts()[found.member.dataset]
    program = program_of(found.stage, found.policy(), facts.units, facts.observation_size, facts.action_size)
    content = WRITERS[format](program, describe(found, facts, program, format))
    agreement = compare(program, FilePolicy(content, str(out)), CHECKED)
    if not agreement.holds:
        raise UserError(
            f"{out}: not written, its actions differ from JAX's by {agreement.largest:.1e} of their range "
            f"({agreement.tolerance:.1e} allowed), and altogether in {agreement.elsewhere:.1%} of {CHECKED} "
            "observations; give another --format"
        )
    with errors_told():
        write_atomically(out, content)
    return agreement


def describe(found: Found, facts: DatasetFacts, program: Program, format: Format) -> Metadata:
    """The metadata of a file."""
    member = found.member
    return Metadata(
        format=format,
        dataset=member.dataset,
        algorithm=found.stage.algorithm,
        seed=member.seed,
        settings=dict(member.settings),
        swept=_swept(found.run.members(), member),
        chosen_by=found.chosen_by,
        observation_size=facts.observation_size,
        action_size=facts.action_size,
        action_low=facts.action_low,
        action_high=facts.action_high,
        observation_keys=list(facts.observation_keys),
        environment=facts.environment,
        noise=[one._asdict() for one in program.columns],
        address=member.address(found.stage),
        fingerprint=facts.fingerprint,
        versions=versions(),
        commit=commit(),
        layers=[layer.activation for layer in npz.layers_of(program)] if format == "npz" else [],
    )


def _swept(members: Sequence[Member], member: Member) -> list[str]:
    """The settings that members of one method and dataset do not share."""
    own = [one for one in members if (one.dataset, one.algorithm) == (member.dataset, member.algorithm)]
    return [flag for flag in member.settings if len({one.settings[flag] for one in own}) > 1]


def compare(program: Program, policy: FilePolicy, count: int, seed: int = 0) -> Agreement:
    """A file beside JAX on `count` random observations like those of the dataset."""
    generator = np.random.default_rng(seed)
    inputs = [observations_like(program, count, generator)]
    if program.columns:
        inputs.append(draw(program.columns, count, generator))
    act: Any = jax.jit(lambda *inputs: program(*inputs))
    expected = np.asarray(act(*inputs))
    extent = np.maximum(program.units.action_high - np.asarray(program.units.action_low), 1e-12)

    def differences(actions: np.ndarray) -> np.ndarray:
        return np.max(np.abs(actions - expected) / extent, axis=1)

    found, tolerance, far = differences(policy.act_with(*inputs)), TOLERANCE, np.zeros(count, bool)
    if program.columns:
        # A sampler of many steps makes more of the last bit of its inputs, and a choice can fall on another candidate.
        rounded = [np.nextafter(one, np.float32(np.inf)) for one in inputs]
        tolerance = max(TOLERANCE, 10.0 * float(np.quantile(differences(np.asarray(act(*rounded))), 0.99)))
        far = found > tolerance
    return Agreement(float(np.max(found[~far], initial=0.0)), tolerance, float(np.mean(far)))


def observations_like(program: Program, count: int, generator: np.random.Generator) -> np.ndarray:
    """Normal observations [count, observation_size] float32 of the mean and deviation that the policy expects."""
    numbers = generator.standard_normal((count, program.observation_size), np.float32)
    return np.asarray(program.units.observation_mean + program.units.observation_std * numbers, np.float32)
