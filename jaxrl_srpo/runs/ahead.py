"""The next stage's programs are compiled while the current stage trains."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.nn import precision
from jaxrl_srpo.population.offline import Programs
from jaxrl_srpo.population.vectorize import Strategy
from jaxrl_srpo.runs.setup import TrainingData, in_groups, programs_of
from jaxrl_srpo.runs.sweep import Member


class _Compiled(NamedTuple):
    stage: Stage
    members: list[Member]
    programs: Future[Programs]


class CompileAhead:
    """Compiles what one population will run, in a thread, and keeps it until that population is made.

    Args:
      data: transitions of the run's datasets.
      strategy: see `population.vectorize`.
    """

    def __init__(self, data: TrainingData, strategy: Strategy) -> None:
        self._data, self._strategy = data, strategy
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._compiled: _Compiled | None = None

    def begin(self, stage: Stage, members: Sequence[Member]) -> None:
        """Starts compiling, unless the same is compiled or under way."""
        if self._compiled is None or not self._is_of(self._compiled, stage, members):
            programs = self._pool.submit(self._programs_of, stage, members)
            self._compiled = _Compiled(stage, list(members), programs)

    def take(self, stage: Stage, members: Sequence[Member]) -> Programs | None:
        """The programs of this population, once they are compiled; None if others or none were asked for."""
        compiled, self._compiled = self._compiled, None
        if compiled is None or not self._is_of(compiled, stage, members):
            return None
        return compiled.programs.result()

    def close(self) -> None:
        """Lets the thread end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _programs_of(self, stage: Stage, members: Sequence[Member]) -> Programs:
        # What is traced in a thread has the precision of the thread.
        with precision.using(members[0].settings["precision"]):
            return programs_of(self._data, stage, in_groups(stage, members), self._strategy)

    @staticmethod
    def _is_of(compiled: _Compiled, stage: Stage, members: Sequence[Member]) -> bool:
        return compiled.stage is stage and compiled.members == list(members)
