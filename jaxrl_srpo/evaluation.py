"""Scores in real environments: all members and episodes stepped together, with one policy call per step."""

import concurrent.futures
import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.data.validation import check_fits
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.errors import UserError

if TYPE_CHECKING:
    import gymnasium

Act = Callable[[np.ndarray], np.ndarray]
"""Observations [members, episodes, observation_size] float32 to actions [members, episodes, action_size]."""

_MAX_WORKERS = 16


@dataclasses.dataclass(frozen=True)
class Episodes:
    """What M members did in E episodes each.

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
      metric: `normalized_score` (0 random, 100 expert), `success_rate` (0 or 1 per episode) or `return`.
      values: [E] float64.
    """

    metric: str
    values: np.ndarray


def scores(episodes: Episodes, member: int, reference: ReferenceReturns | None) -> Scores:
    """Normalised scores where there is a reference, else successes in goal tasks, else returns."""
    returns = episodes.returns[member]
    if reference is not None:
        return Scores("normalized_score", reference.normalize(returns))
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
      workers: threads that step; None uses the cores (16 at most) where threads pay. That is where MuJoCo, which runs
        outside Python's lock, does several steps per action: on 2 idle cores 1.3 times faster for HalfCheetah, 1.5
        times for Hopper and 1.7 times for Ant, but 1.8 times slower for PointMaze, which stays on one thread.

    Raises:
      UserError: an environment cannot be made, is not made of vectors, or the sizes differ.
    """

    def __init__(
        self, environments: Sequence[EnvironmentSpec], episodes: int, seed: int, *, workers: int | None = None
    ) -> None:
        if not environments or episodes < 1:
            raise UserError(f"{len(environments)} environments with {episodes} episodes each; both must be at least 1")
        self._specs, self._episodes, self._seed = list(environments), episodes, seed
        self._environments = [make_environment(spec, lean=True) for spec in environments for _ in range(episodes)]
        self._running = threading.Lock()
        try:
            self.observation_size, self.action_size = self._common_sizes()
        except UserError:
            self.close()
            raise
        self._workers = workers or (_cores() if _threads_pay(self._environments[0]) else 1)

    def check(self, datasets: Sequence[Dataset]) -> None:
        """Checks that each member's dataset has the sizes of the environments.

        Raises:
          DatasetError: one has not.
        """
        for dataset in datasets:
            check_fits(dataset, self.observation_size, self.action_size)

    def run(self, act: Act, *, record: bool = False) -> Episodes:
        """Plays all episodes to their ends.

        Args:
          act: called once per step with float32 observations [M, E, observation_size]; returns actions
            [M, E, action_size] in the environments' units. Rows of finished episodes hold their last observation.
          record: keep the observations.

        Returns:
          The episodes. A member whose action is not finite loses that episode with a NaN return; the others go on.

        Raises:
          UserError: `act` returns another shape.
        """
        with self._running, concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            return self._run(act, record, pool)

    def close(self) -> None:
        """Closes all environments."""
        for environment in self._environments:
            environment.close()

    def __enter__(self) -> "Rollouts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, act: Act, record: bool, pool: concurrent.futures.ThreadPoolExecutor) -> Episodes:
        progress = _Progress(len(self._environments), self.observation_size, record)
        for row, environment in enumerate(self._environments):
            observation, info = environment.reset(seed=self._seed + row % self._episodes)
            progress.start(row, observation, info)
        shape = (len(self._specs), self._episodes)
        while len(active := np.flatnonzero(progress.active)):
            # A copy, because a policy may keep its argument and JAX may alias it on the CPU.
            actions = np.asarray(act(progress.observations.reshape(*shape, -1).copy()))
            if actions.shape != (*shape, self.action_size):
                raise UserError(
                    f"the policy returned actions of shape {actions.shape}; expected {(*shape, self.action_size)}"
                )
            actions = actions.reshape(-1, self.action_size).astype(np.float32, copy=False)
            active = progress.drop(active, np.isfinite(actions[active]).all(axis=1))
            self._step(progress, active, actions, pool)
        return progress.episodes(shape, np.array([spec.goal_task for spec in self._specs]))

    def _step(
        self, progress: "_Progress", rows: np.ndarray, actions: np.ndarray, pool: concurrent.futures.ThreadPoolExecutor
    ) -> None:
        """One step of the environments `rows`, shared among the threads."""

        def step(chunk: np.ndarray) -> None:
            for row in chunk:
                progress.add(row, self._environments[row].step(actions[row]), self._goal_task(row))

        if self._workers == 1:
            step(rows)
        else:
            chunks = (chunk for chunk in np.array_split(rows, self._workers) if len(chunk))
            for _ in pool.map(step, chunks):
                pass

    def _goal_task(self, row: int) -> bool:
        return self._specs[row // self._episodes].goal_task

    def _common_sizes(self) -> tuple[int, int]:
        sizes = [_sizes(spec, self._environments[i * self._episodes]) for i, spec in enumerate(self._specs)]
        for spec, size in zip(self._specs, sizes, strict=True):
            if size != sizes[0]:
                raise UserError(
                    f"environment {spec.id} has observations and actions of widths {size}, {self._specs[0].id} of "
                    f"{sizes[0]}; members evaluated together need equal widths"
                )
        return sizes[0]


class _Progress:
    """The state of a run, one row per environment; threads write to different rows."""

    def __init__(self, rows: int, observation_size: int, record: bool) -> None:
        self.observations = np.zeros((rows, observation_size), np.float32)
        self.active = np.ones(rows, bool)
        self._returns, self._lengths = np.zeros(rows), np.zeros(rows, np.int64)
        self._successes = np.zeros(rows, bool)
        self._recorded: list[list[np.ndarray]] | None = [[] for _ in range(rows)] if record else None

    def start(self, row: int, observation: np.ndarray, info: dict[str, Any]) -> None:
        """Takes a reset's result."""
        self._observe(row, observation)
        self._successes[row] = bool(info.get("success", False))

    def add(self, row: int, result: tuple[np.ndarray, Any, bool, bool, dict[str, Any]], goal_task: bool) -> None:
        """Takes a step's result."""
        observation, reward, terminated, truncated, info = result
        self._observe(row, observation)
        self._returns[row] += float(reward)
        self._lengths[row] += 1
        reached = goal_task and terminated and float(reward) > 0.0
        self._successes[row] |= bool(info.get("success", False)) or reached
        self.active[row] = not (terminated or truncated)

    def drop(self, rows: np.ndarray, keep: np.ndarray) -> np.ndarray:
        """Ends the episodes `rows` where `keep` is false; returns the others."""
        lost = rows[~keep]
        self._returns[lost] = np.nan
        self.active[lost] = False
        return rows[keep]

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

    def _observe(self, row: int, observation: np.ndarray) -> None:
        self.observations[row] = observation
        if self._recorded is not None:
            self._recorded[row].append(self.observations[row].copy())


class BackgroundEvaluator:
    """Runs evaluations one after another in one thread, while the caller goes on training.

    As a context manager it finishes what was submitted, but drops it when an exception (a KeyboardInterrupt too) ends
    the block.
    """

    def __init__(self) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="evaluation")
        self._stopped = threading.Event()

    def submit(self, rollouts: Rollouts, act: Act, *, record: bool = False) -> concurrent.futures.Future[Episodes]:
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


def _sizes(spec: EnvironmentSpec, environment: "gymnasium.Env[np.ndarray, Any]") -> tuple[int, int]:
    """Widths of observations and actions."""
    action, observation = environment.action_space.shape, environment.observation_space.shape
    if not isinstance(getattr(environment.action_space, "low", None), np.ndarray) or action is None or len(action) != 1:
        raise UserError(f"environment {spec.id} has actions {environment.action_space}; expected a box with one axis")
    assert observation is not None
    return observation[0], action[0]


def _threads_pay(environment: "gymnasium.Env") -> bool:
    """Whether MuJoCo does several physics steps per action; Gymnasium-Robotics' AntMaze keeps its Ant inside."""
    simulation = getattr(environment.unwrapped, "ant_env", environment.unwrapped)
    return getattr(simulation, "frame_skip", 1) > 1


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MAX_WORKERS)
