"""OGBench's environments: registered when one is asked for, and many of one kind stepped with one model per thread.

An arm takes a second and 165 MB to build, so that an environment for every member and episode would not do. The rows of
a batch have MuJoCo data of their own, 1.5 MB, and share a few environments; OGBench's own code steps them, so that
observations, rewards and ends are its own to the last bit.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_srpo.data import ogbench_tasks
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs.simulator import Start, Threads, Transition, action_bounds, time_limit
from jaxrl_srpo.errors import UserError, first_line

if TYPE_CHECKING:
    import gymnasium

INSTALL = "pip install 'jaxrl-srpo[ogbench]'"
_PACKAGE = "ogbench."
_GL = "MUJOCO_GL"
# What an environment keeps from one step to the next outside MuJoCo; the goal is that of all.
_KEPT = ("_success", "_cur_button_states")


def register(environment_id: str) -> None:
    """Imports OGBench, which registers its environments, where an id is one of its single tasks.

    Raises:
      UserError: it is not installed.
    """
    if environment_id in ogbench_tasks.environment_ids():
        import_package(environment_id)


def import_package(environment_id: str) -> None:
    """Imports OGBench for one of its environments, without a display.

    Raises:
      UserError: it is not installed.
    """
    try:
        # It looks for a display, too, and complains where there is none.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ogbench  # noqa: F401

        if environment_id.startswith(("cube", "scene", "puzzle")):
            _import_dm_control()
    except ImportError as error:
        raise UserError(f"environment {environment_id} needs OGBench ({first_line(error)}); {INSTALL}") from error


def _import_dm_control() -> None:
    """Imports dm_control, which looks for a display and takes MuJoCo's warnings over, without either."""
    import mujoco

    warn = mujoco.get_mju_user_warning()
    # Nothing is rendered by it.
    with _unless_set(_GL, "disable"), quiet():
        import dm_control.mjcf  # noqa: F401
    mujoco.set_mju_user_warning(warn)


def settle(environment: Any) -> None:
    """Has an unwrapped environment of the arm make its space of actions once.

    It makes a new one, with a new generator and a warning on the digits of its bounds, whenever it is asked for it.
    """
    base: Any = type(environment)
    if isinstance(getattr(base, "action_space", None), property):
        environment.__class__ = _with_one_space(base)
        with quiet():
            environment.action_space  # noqa: B018


def is_ogbench(entry_point: object) -> bool:
    """Whether an environment is one of OGBench's, by the entry point that is registered for it."""
    return str(entry_point).startswith(_PACKAGE)


def is_single_task(spec: EnvironmentSpec) -> bool:
    """Whether environments of a spec have the same goal all the time, so that rows may share them."""
    return spec.id in ogbench_tasks.environment_ids() and not spec.kwargs and not spec.wrappers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences what OGBench's environments cause: bounds written in more digits than float32 has."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*precision lowered by casting.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


@contextlib.contextmanager
def _unless_set(variable: str, value: str) -> Iterator[None]:
    """An environment variable for a while, unless a person has set it."""
    if variable in os.environ:
        yield
        return
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]


class OGBenchSimulator:
    """A `VectorSimulator` of N rows on a few environments.

    Args:
      environments: one for each thread, with vector observations; the first plays the resets.
      count: N.
    """

    def __init__(self, environments: Sequence["gymnasium.Env[np.ndarray, Any]"], count: int) -> None:
        import mujoco

        first = environments[0]
        shapes = first.observation_space.shape, first.action_space.shape
        assert shapes[0] is not None
        assert shapes[1] is not None
        self.observation_size, self.action_size = shapes[0][0], shapes[1][0]
        self.action_low, self.action_high = action_bounds(first)
        self.max_episode_steps = time_limit(first)
        self._environments = environments
        self._places = [_Place(one.unwrapped) for one in environments]
        self._copy: Callable[..., Any] = mujoco.mj_copyData
        self._data = [mujoco.MjData(self._places[0].model) for _ in range(count)]
        self._kept: list[dict[str, Any]] = [{} for _ in range(count)]
        self._steps = np.zeros(count, np.int64)
        self._threads = Threads(len(environments))

    def reset(self, seeds: Sequence[int], rows: np.ndarray | None = None) -> Start:
        """See `VectorSimulator`."""
        chosen = np.arange(len(self._steps)) if rows is None else rows
        observations = np.empty((len(chosen), self.observation_size), np.float32)
        # Evaluations start all members from the same seeds, so that there are far fewer resets than rows.
        for seed in np.unique(seeds):
            own = np.flatnonzero(np.asarray(seeds) == seed)
            observations[own] = self._start(int(seed), chosen[own])
        self._steps[chosen] = 0
        return Start(observations, np.zeros(len(chosen), bool))

    def step(self, rows: np.ndarray, actions: np.ndarray) -> Transition:
        """See `VectorSimulator`."""
        count = len(rows)
        result = Transition.empty(count, self.observation_size)

        def work(thread: int, own: np.ndarray) -> None:
            for i in own:
                self._advance(self._places[thread], int(rows[i]), actions[i], result, int(i))

        self._threads.share(work, count)
        self._steps[rows] += 1
        limit = self.max_episode_steps
        result.truncated[:] = False if limit is None else self._steps[rows] >= limit
        return result

    def close(self) -> None:
        """See `VectorSimulator`."""
        self._threads.close()
        self._data.clear()
        for place, environment in zip(self._places, self._environments, strict=True):
            place.leave()
            environment.close()

    def _start(self, seed: int, rows: np.ndarray) -> np.ndarray:
        """Starts rows as `reset(seed=seed)` does; returns their observation [observation_size]."""
        place = self._places[0]
        place.leave()
        with seeded(place.environment, seed):
            observation, _ = self._environments[0].reset(seed=seed)
        place.find()
        for row in rows:
            self._copy(self._data[row], place.model, place.data)
            self._kept[row] = place.kept()
        return observation

    def _advance(self, place: "_Place", row: int, action: np.ndarray, result: Transition, i: int) -> None:
        place.enter(self._data[row], self._kept[row])
        observation, reward, terminated, _, info = place.environment.step(action)
        self._kept[row] = place.kept()
        result.observations[i], result.rewards[i] = observation, reward
        result.terminated[i], result.successes[i] = terminated, bool(info["success"])


class _Place:
    """An environment of OGBench's in which rows take turns.

    Args:
      environment: unwrapped, after a reset.
    """

    def __init__(self, environment: Any) -> None:
        self.environment = environment
        self._name = "_data" if hasattr(environment, "_data") else "data"
        self.find()

    def find(self) -> None:
        """Looks up what a reset may have made anew."""
        self.model = getattr(self.environment, self._name.replace("data", "model"))
        self.data = getattr(self.environment, self._name)

    def enter(self, data: Any, kept: dict[str, Any]) -> None:
        """Puts a row in the environment's place."""
        setattr(self.environment, self._name, data)
        buttons = kept.get("_cur_button_states")
        changed = buttons is not None and not np.array_equal(buttons, self.environment._cur_button_states)
        for name, value in kept.items():
            setattr(self.environment, name, value)
        if changed:
            # They lock the drawer and the window, which is a matter of the model.
            self.environment._apply_button_states()

    def leave(self) -> None:
        """Gives the environment its own data back."""
        setattr(self.environment, self._name, self.data)

    def kept(self) -> dict[str, Any]:
        """What a row keeps outside its data."""
        found = {name: getattr(self.environment, name) for name in _KEPT if hasattr(self.environment, name)}
        return {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in found.items()}


@functools.cache
def _with_one_space(base: Any) -> Any:
    """A class of environments whose space of actions is the same object every time."""

    def space(environment: Any) -> Any:
        if "_one_space" not in vars(environment):
            environment._one_space = base.action_space.fget(environment)
        return environment._one_space

    return type(base.__name__, (base,), {"action_space": property(space)})


@contextlib.contextmanager
def seeded(environment: Any, seed: int) -> Iterator[None]:
    """Seeds what a reset of OGBench's draws from besides its own generator: random actions, and NumPy's global one."""
    environment.action_space.seed(seed)
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
