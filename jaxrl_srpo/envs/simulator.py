"""Many environments of one kind behind one interface, and that interface over Gymnasium environments."""

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.processors import usable_cores

if TYPE_CHECKING:
    import gymnasium

_MAX_WORKERS = 16
_PARTS_PER_THREAD = 4


class Start(NamedTuple):
    """The result of a reset of n environments.

    Attributes:
      observations: [n, observation_size] float32.
      successes: [n] bool, whether success was reported.
    """

    observations: np.ndarray
    successes: np.ndarray


class Transition(NamedTuple):
    """The result of one step of n environments.

    Attributes:
      observations: [n, observation_size] float32.
      rewards: [n] float64.
      terminated: [n] bool, true terminations.
      truncated: [n] bool, ends by the time limit.
      successes: [n] bool, whether success was reported.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    successes: np.ndarray

    @classmethod
    def empty(cls, count: int, observation_size: int) -> "Transition":
        """Arrays for `count` environments, to be filled."""
        flags = (np.empty(count, bool) for _ in range(3))
        return cls(np.empty((count, observation_size), np.float32), np.empty(count), *flags)


class VectorSimulator(Protocol):
    """N environments of one kind, numbered 0 to N - 1; results do not depend on the number of threads.

    Attributes:
      observation_size: width of one observation.
      action_size: width of one action.
      action_low, action_high: [action_size] float32 bounds of actions.
      max_episode_steps: time limit; None without one.
    """

    observation_size: int
    action_size: int
    action_low: np.ndarray
    action_high: np.ndarray
    max_episode_steps: int | None

    def reset(self, seeds: Sequence[int], rows: np.ndarray | None = None) -> Start:
        """Starts the environments `rows` [n], all by default, as Gymnasium's `reset(seed=seeds[i])` does."""

    def step(self, rows: np.ndarray, actions: np.ndarray) -> Transition:
        """One step of the environments `rows` [n] with actions [n, action_size] float32; the others stand still."""

    def close(self) -> None:
        """Frees threads and environments."""


class Threads:
    """Threads that share the rows of a batch, the caller's own among them.

    Args:
      count: how many, the caller's included.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = concurrent.futures.ThreadPoolExecutor(max(1, count - 1), thread_name_prefix="environments")

    def share(self, work: Callable[[int, np.ndarray], None], rows: int) -> None:
        """Calls `work` with the number of a thread and some of the rows 0 to rows - 1, until all are done."""
        # Small parts that each thread takes when it is free: on a machine that trains meanwhile a helper may wait long
        # for a core, and nobody waits for a helper that has not begun.
        parts = iter(np.array_split(np.arange(rows), max(1, min(_PARTS_PER_THREAD * self._count, rows))))

        def take(thread: int) -> None:
            for part in parts:
                work(thread, part)

        helpers = [self._pool.submit(take, thread) for thread in range(1, min(self._count, rows))]
        try:
            take(0)
        finally:
            concurrent.futures.wait([helper for helper in helpers if not helper.cancel()])
        for helper in helpers:
            if not helper.cancelled():
                helper.result()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown()


class GymnasiumSimulator:
    """Gymnasium environments, one `step` call each, shared among threads.

    Args:
      environments: with vector observations.
      action_size: width of their actions.
      workers: threads; see `default_workers`.
    """

    def __init__(
        self,
        environments: Sequence["gymnasium.Env[np.ndarray, Any]"],
        action_size: int,
        workers: int | None = None,
    ) -> None:
        self._environments = environments
        shape = environments[0].observation_space.shape
        assert shape is not None
        self.observation_size, self.action_size = shape[0], action_size
        self.action_low, self.action_high = action_bounds(environments[0])
        self.max_episode_steps = time_limit(environments[0])
        self._threads = Threads(workers or default_workers(environments[0]))

    def reset(self, seeds: Sequence[int], rows: np.ndarray | None = None) -> Start:
        """See `VectorSimulator`."""
        chosen = self._environments if rows is None else [self._environments[row] for row in rows]
        starts = [one.reset(seed=int(seed)) for one, seed in zip(chosen, seeds, strict=True)]
        successes = np.array([bool(info.get("success", False)) for _, info in starts])
        return Start(np.stack([observation for observation, _ in starts]).astype(np.float32, copy=False), successes)

    def step(self, rows: np.ndarray, actions: np.ndarray) -> Transition:
        """See `VectorSimulator`."""
        count = len(rows)
        result = Transition.empty(count, self.observation_size)

        def work(_: int, own: np.ndarray) -> None:
            for i in own:
                _store(result, i, self._environments[rows[i]].step(actions[i]))

        self._threads.share(work, count)
        return result

    def close(self) -> None:
        """See `VectorSimulator`."""
        self._threads.close()
        for environment in self._environments:
            environment.close()


def _store(result: Transition, i: int, step: tuple[np.ndarray, Any, bool, bool, dict[str, Any]]) -> None:
    observation, reward, terminated, truncated, info = step
    result.observations[i] = observation
    if np.size(reward) != 1:
        raise UserError(f"an environment gave the reward {reward}; expected one number")
    result.rewards[i] = np.asarray(reward, np.float64).item()
    result.terminated[i], result.truncated[i] = terminated, truncated
    result.successes[i] = bool(info.get("success", False))


def rows_by_spec(specs: Sequence[EnvironmentSpec], count: int) -> list[tuple[EnvironmentSpec, np.ndarray]]:
    """Different specs, in order, with the rows [n] int64 of the members that have them, `count` rows per member."""
    found: list[tuple[EnvironmentSpec, list[int]]] = []
    for member, spec in enumerate(specs):
        rows = next((rows for known, rows in found if known == spec), None)
        if rows is None:
            rows = []
            found.append((spec, rows))
        rows.extend(range(member * count, (member + 1) * count))
    return [(spec, np.array(rows)) for spec, rows in found]


def action_bounds(environment: "gymnasium.Env") -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest actions [action_size] of an environment whose actions are a box."""
    space: Any = environment.action_space
    return space.low, space.high


def time_limit(environment: "gymnasium.Env") -> int | None:
    """Steps after which episodes are cut off; None without a limit."""
    return None if environment.spec is None else environment.spec.max_episode_steps


def most_workers() -> int:
    """Threads where many pay: the cores, 16 at most."""
    return min(usable_cores(), _MAX_WORKERS)


def default_workers(environment: "gymnasium.Env") -> int:
    """Threads that step environments like this one: the cores (16 at most) where threads pay, else one.

    They pay where MuJoCo, which runs outside Python's lock, does several physics steps per action. Gymnasium-Robotics'
    AntMaze keeps its Ant inside.
    """
    simulation = getattr(environment.unwrapped, "ant_env", environment.unwrapped)
    if getattr(simulation, "frame_skip", 1) == 1:
        return 1
    return most_workers()
