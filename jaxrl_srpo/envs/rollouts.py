"""Scores in real environments: all members and episodes stepped together, with one policy call per step."""

import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np

from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.data.validation import check_fits
from jaxrl_srpo.envs.batched import make_simulator
from jaxrl_srpo.envs.simulator import Start, Transition, VectorSimulator, rows_by_spec
from jaxrl_srpo.errors import UserError

BatchedPolicy = Callable[[np.ndarray], np.ndarray]
"""Observations [members, episodes, observation_size] float32 to actions [members, episodes, action_size]."""


@dataclasses.dataclass(frozen=True)
class Episodes:
    """The episodes of M members, E each.

    Attributes:
      returns: [M, E] float64, undiscounted; NaN where the policy gave an action that is not finite.
      lengths: [M, E] int64, steps.
      successes: [M, E] bool; the environment reported success at some step, or a goal task ended with positive reward.
      goal_tasks: [M] bool, whether successes mean anything.
      observations: per member and episode the observations [steps + 1, observation_size] float32 if recorded.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray
    goal_tasks: np.ndarray
    observations: list[list[np.ndarray]] | None = None


class Scores(NamedTuple):
    """One member's episodes in the measure that its tables use.

    Attributes:
      metric: that of `ReferenceReturns` (0 random, 100 expert), `success_rate` (0 or 1 per episode) or `return`.
      values: [E] float64.
    """

    metric: str
    values: np.ndarray


def scores(episodes: Episodes, member: int, reference: ReferenceReturns | None) -> Scores:
    """Normalized scores where there is a reference, else successes in goal tasks, else returns."""
    returns = episodes.returns[member]
    if reference is not None:
        return Scores(reference.metric, reference.normalize(returns))
    if episodes.goal_tasks[member]:
        values = np.where(np.isnan(returns), np.nan, episodes.successes[member].astype(np.float64))
        return Scores("success_rate", values)
    return Scores("return", returns)


class Rollouts:
    """Environments of M members times E episodes, kept between evaluations.

    Episode e of every member starts from `reset(seed=seed + e)` at every run, so that members and evaluations are
    compared on the same starts. Environments that are done are not stepped, but their rows stay in the batch, so that a
    compiled policy sees one shape only. Results do not depend on the number of threads.

    Args:
      environments: one per member; they may differ in all but their sizes.
      episodes: E, episodes per member.
      seed: seed of episode 0.
      workers: threads that step; see `envs.batched.make_simulator`.

    Raises:
      UserError: an environment cannot be made, is not made of vectors, or the sizes differ.
    """

    def __init__(
        self, environments: Sequence[EnvironmentSpec], episodes: int, seed: int, *, workers: int | None = None
    ) -> None:
        if not environments or episodes < 1:
            raise UserError(f"{len(environments)} environments with {episodes} episodes each; both must be at least 1")
        self._specs, self._episodes, self._seed = list(environments), episodes, seed
        self._running = threading.Lock()
        self._groups: list[_Group] = []
        try:
            for spec, rows in rows_by_spec(self._specs, episodes):
                self._groups.append(_Group(rows, make_simulator(spec, len(rows), workers)))
                self._check_sizes(spec)
        except UserError:
            self.close()
            raise
        first = self._groups[0].simulator
        self.observation_size, self.action_size = first.observation_size, first.action_size

    def check(self, datasets: Sequence[Dataset]) -> None:
        """Checks that each member's dataset has the sizes of the environments.

        Raises:
          DatasetError: one has not.
        """
        for dataset in datasets:
            check_fits(dataset, self.observation_size, self.action_size)

    def run(self, act: BatchedPolicy, *, record: bool = False, seeds: np.ndarray | None = None) -> Episodes:
        """Plays all episodes to their ends.

        Args:
          act: called once per step with float32 observations [M, E, observation_size]; returns actions
            [M, E, action_size] in the environments' units. Rows of finished episodes hold their last observation.
          record: keep the observations.
          seeds: [M, E] of the resets, in place of those that follow from the seed of episode 0.

        Returns:
          The episodes. A member whose action is not finite loses that episode with a NaN return; the others go on.

        Raises:
          UserError: `act` returns another shape.
        """
        with self._running:
            return self._run(act, record, seeds)

    def close(self) -> None:
        """Closes all environments."""
        for group in self._groups:
            group.simulator.close()

    def __enter__(self) -> "Rollouts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, act: BatchedPolicy, record: bool, seeds: np.ndarray | None) -> Episodes:
        shape = (len(self._specs), self._episodes)
        own = np.broadcast_to(self._seed + np.arange(self._episodes), shape) if seeds is None else seeds
        goal_tasks = np.array([spec.goal_task for spec in self._specs])
        progress = _Progress(np.repeat(goal_tasks, self._episodes), self.observation_size, record)
        for rows, simulator in self._groups:
            progress.start(rows, simulator.reset(own.reshape(-1)[rows].tolist()))
        while len(active := np.flatnonzero(progress.active)):
            # A copy, because a policy may keep its argument and JAX may alias it on the CPU.
            actions = np.asarray(act(progress.observations.reshape(*shape, -1).copy()))
            if actions.shape != (*shape, self.action_size):
                raise UserError(
                    f"the policy returned actions of shape {actions.shape}; expected {(*shape, self.action_size)}"
                )
            actions = actions.reshape(-1, self.action_size).astype(np.float32, copy=False)
            progress.drop(active[~np.isfinite(actions[active]).all(axis=1)])
            self._step(progress, actions)
        return progress.episodes(shape, goal_tasks)

    def _step(self, progress: "_Progress", actions: np.ndarray) -> None:
        """One step of all active environments."""
        for rows, simulator in self._groups:
            own = np.flatnonzero(progress.active[rows])
            if len(own):
                progress.add(rows[own], simulator.step(own, actions[rows[own]]))

    def _check_sizes(self, spec: EnvironmentSpec) -> None:
        """Compares the last simulator with the first."""
        sizes = [(group.simulator.observation_size, group.simulator.action_size) for group in self._groups]
        if sizes[-1] != sizes[0]:
            raise UserError(
                f"environment {spec.id} has observations and actions of widths {sizes[-1]}, {self._specs[0].id} of "
                f"{sizes[0]}; members evaluated together need equal widths"
            )


class _Group(NamedTuple):
    """The rows [n] int64 of one environment, members times episodes, and what steps them."""

    rows: np.ndarray
    simulator: VectorSimulator


class _Progress:
    """The state of a run, one row per environment.

    Args:
      goal_tasks: [rows] bool, where ending with a positive reward counts as success.
      observation_size: width of one observation.
      record: keep the observations.
    """

    def __init__(self, goal_tasks: np.ndarray, observation_size: int, record: bool) -> None:
        rows = len(goal_tasks)
        self.observations = np.zeros((rows, observation_size), np.float32)
        self.active = np.ones(rows, bool)
        self._goal_tasks = goal_tasks
        self._returns, self._lengths = np.zeros(rows), np.zeros(rows, np.int64)
        self._successes = np.zeros(rows, bool)
        self._recorded: list[list[np.ndarray]] | None = [[] for _ in range(rows)] if record else None

    def start(self, rows: np.ndarray, start: Start) -> None:
        """Takes a reset's result."""
        self._observe(rows, start.observations)
        self._successes[rows] = start.successes

    def add(self, rows: np.ndarray, step: Transition) -> None:
        """Takes a step's result."""
        self._observe(rows, step.observations)
        self._returns[rows] += step.rewards
        self._lengths[rows] += 1
        reached = self._goal_tasks[rows] & step.terminated & (step.rewards > 0.0)
        self._successes[rows] |= step.successes | reached
        self.active[rows] = ~(step.terminated | step.truncated)

    def drop(self, rows: np.ndarray) -> None:
        """Ends the episodes `rows` without a result."""
        self._returns[rows] = np.nan
        self.active[rows] = False

    def episodes(self, shape: tuple[int, int], goal_tasks: np.ndarray) -> Episodes:
        """The result, rows arranged as [members, episodes]."""
        observations = None
        if self._recorded is not None:
            paths = [np.stack(path) for path in self._recorded]
            observations = [paths[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]
        return Episodes(
            self._returns.reshape(shape),
            self._lengths.reshape(shape),
            self._successes.reshape(shape),
            goal_tasks,
            observations,
        )

    def _observe(self, rows: np.ndarray, observations: np.ndarray) -> None:
        self.observations[rows] = observations
        if self._recorded is not None:
            for row, observation in zip(rows, observations, strict=True):
                self._recorded[row].append(observation)


class BackgroundEvaluator:
    """Runs evaluations one after another in one thread, while the caller goes on training.

    As a context manager it finishes what was submitted, but drops it when an exception (a KeyboardInterrupt too) ends
    the block.
    """

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="evaluation")
        self._stopped = threading.Event()

    def submit(
        self, rollouts: Rollouts, act: BatchedPolicy, *, record: bool = False
    ) -> concurrent.futures.Future[Episodes]:
        """Queues `rollouts.run(act, record=record)`; its exceptions come out of the future's `result()`."""

        def until_stopped(observations: np.ndarray) -> np.ndarray:
            if self._stopped.is_set():
                raise concurrent.futures.CancelledError("the evaluator was closed")
            return act(observations)

        return self._pool.submit(rollouts.run, until_stopped, record=record)

    def close(self, *, finish: bool = False) -> None:
        """Ends the thread; idempotent.

        Args:
          finish: play what was submitted to its end; otherwise the evaluation under way stops at its next step and its
            future, like those that wait, raises CancelledError.
        """
        if not finish:
            self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=not finish)

    def __enter__(self) -> "BackgroundEvaluator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=kind is None)
