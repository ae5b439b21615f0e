"""How a stage of a population learns, on the dataset or online, behind one interface; all arrays [groups, members]."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.episodes import Units
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.stages import Stage
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.offline import Members, Population
from jaxrl_srpo.population.online import GymnasiumRun, Progress
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.runs.run_directory import DatasetFacts
from jaxrl_srpo.runs.sweep import Member


class Learning(Protocol):
    """A stage of a population between two chunks."""

    def run(self, start: int, stop: int) -> Mapping[str, np.ndarray]:
        """Steps `start` to `stop` of every member; returns means of what was measured."""

    @property
    def states(self) -> Any:
        """The algorithm's states on the host."""

    @property
    def diverged_at(self) -> np.ndarray:
        """Update at which a member stopped being finite; -1 while all is well."""

    def checkpoint(self) -> Any:
        """What `restore` needs, a pytree of arrays on the host."""

    def restore(self, saved: Any) -> None:
        """Goes back to a checkpoint."""

    def close(self) -> None:
        """Lets go of environments."""


class OfflineLearning:
    """Learns from the transition table; a step is an update.

    Args:
      stage: what learns.
      member: any of the population.
      members: all of them, not placed.
      frozen: results of earlier stages, leaves [groups, ...].
      rows: the transition table.
      strategy: see `Population`.
    """

    def __init__(
        self, stage: Stage, member: Member, members: Members, frozen: Any, rows: np.ndarray, strategy: Strategy
    ) -> None:
        config, (groups, size) = stage.config(member.settings), members.keys.shape
        self._population = Population(stage.init, stage.update, member.spec, config, (groups, size), strategy)
        self._rows = self._population.place_table(rows)
        self._members, self._frozen = self._population.place(members), self._population.place_frozen(frozen)
        self._carry = self._population.init(self._members, self._frozen)

    def run(self, start: int, stop: int) -> Mapping[str, np.ndarray]:
        """See `Learning`."""
        self._carry, means = self._population.chunk(
            self._carry, self._members, self._frozen, self._rows, start, stop - start
        )
        return self._population.unpad(means)

    @property
    def states(self) -> Any:
        """See `Learning`."""
        return self._population.unpad(self._carry.state)

    @property
    def diverged_at(self) -> np.ndarray:
        """See `Learning`."""
        return self._population.unpad(self._carry.diverged_at)

    def checkpoint(self) -> Any:
        """See `Learning`."""
        return self._population.unpad(self._carry)

    def restore(self, saved: Any) -> None:
        """See `Learning`."""
        self._carry = self._population.place(saved)

    def close(self) -> None:
        """Nothing to do."""


class OnlineLearning:
    """Learns from its own experience; a step is one of the environment.

    Args:
      stage: what learns.
      member: any of the population.
      members: all of them, not placed.
      frozen: results of earlier stages, leaves [groups, ...].
      rows: the transition table that replay buffers start from.
      facts: of each member's dataset, in order of the groups.
      strategy: see `Population`.

    Raises:
      UserError: several processes of one program cannot learn online together.
    """

    def __init__(
        self,
        stage: Stage,
        member: Member,
        members: Members,
        frozen: Any,
        rows: np.ndarray,
        facts: Sequence[DatasetFacts],
        strategy: Strategy,
    ) -> None:
        if jax.process_count() > 1:
            raise UserError("--online_steps: learning online takes one process; use `jaxrl-srpo work` for several")
        settings = member.settings
        size = int(np.max(members.where.size)) if stage.uses_data else 0
        first = settings.online_warmup_steps if stage.uses_data else settings.sac_random_steps
        loop = Loop(
            update_to_data=settings.update_to_data,
            capacity=size + settings.online_steps,
            warmup_steps=first,
            random_steps=0 if stage.uses_data else first,
        )
        self._run = GymnasiumRun(
            [_environment(one) for one in facts],
            stage.agent(settings, member.spec),
            stage.config(settings),
            loop,
            members=members,
            units=[_units(one) for one in facts],
            frozen=frozen,
            rows=rows if stage.uses_data else None,
            strategy=strategy,
        )
        self._last: Progress | None = None

    def run(self, start: int, stop: int) -> Mapping[str, np.ndarray]:
        """See `Learning`."""
        self._last = last = self._run.run(stop - start)
        episodes = {"episodes": last.episodes, "episode_return": last.returns, "episode_length": last.lengths}
        return {name: np.asarray(values) for name, values in (last.metrics | episodes).items()}

    @property
    def states(self) -> Any:
        """See `Learning`."""
        return self._run.states

    @property
    def diverged_at(self) -> np.ndarray:
        """See `Learning`."""
        assert self._last is not None
        return self._last.diverged_at

    def checkpoint(self) -> Any:
        """See `Learning`."""
        return self._run.checkpoint()

    def restore(self, saved: Any) -> None:
        """See `Learning`."""
        self._run.restore(saved)

    def close(self) -> None:
        """See `Learning`."""
        self._run.close()


def _environment(facts: DatasetFacts) -> EnvironmentSpec:
    environment = facts.environment_spec
    assert environment is not None
    return environment


def _units(facts: DatasetFacts) -> Units:
    """Observations and rewards as the dataset's members see them."""
    mean, std = np.asarray(facts.observation_mean, np.float32), np.asarray(facts.observation_std, np.float32)
    return Units(mean, std, facts.reward_scale, facts.reward_shift)
