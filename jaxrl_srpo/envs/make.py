"""Gymnasium environments from their specs, with flat observations and errors that say what to do."""

import contextlib
import copy
import dataclasses
import difflib
import functools
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from jaxrl_srpo.data import d4rl, d4rl_layouts
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.observations import flatten_observation, observation_keys
from jaxrl_srpo.envs import ogbench
from jaxrl_srpo.envs.wrappers import wrap
from jaxrl_srpo.errors import UserError, first_line
from jaxrl_srpo.io.modules import import_named

if TYPE_CHECKING:
    import gymnasium

_INSTALL = "pip install 'jaxrl-srpo[mujoco]'"
STAR = d4rl_layouts.NAMESPACE + "Star-v0"
"""Id of the star of halls with one goal."""
# Entry point and time limit of environments of ours other than D4RL's mazes.
_OURS = {
    d4rl_layouts.NAMESPACE + "Manipulation-v0": ("jaxrl_srpo.envs.manipulation:Manipulation", 50),
    STAR: ("jaxrl_srpo.envs.star_task:StarTask", 100),
}
_STEPS_TO_DECIDE = 5
_POINT_MAZE = "gymnasium_robotics.envs.maze.point_maze:PointMazeEnv"


def make_environment(spec: EnvironmentSpec, *, lean: bool = False) -> "gymnasium.Env[np.ndarray, Any]":
    """A Gymnasium environment whose observations are float32 vectors.

    Dictionary observations become vectors by the spec's keys; without keys the start and some random steps decide.

    Args:
      spec: id, keyword arguments and time limit.
      lean: leave out what only rendering needs where that saves much. A PointMaze carries a sky of 12 MB and takes
        70 ms to build; without it 4 ms. Observations, rewards and ends are the same.

    Returns:
      The environment; its observation space is a box with one axis.

    Raises:
      UserError: the id is unknown, MuJoCo or Gymnasium-Robotics is missing, the keyword arguments do not fit, a
        wrapper cannot be rebuilt, or observations cannot be made vectors.
    """
    environment = make_unflattened(spec, lean=lean)
    import gymnasium

    space = environment.observation_space
    observation, _ = environment.reset(seed=0)
    keys: tuple[str, ...] = ()
    if isinstance(space, gymnasium.spaces.Dict):
        keys = spec.observation_keys or _observation_keys(spec.id, environment)
    elif not isinstance(space, gymnasium.spaces.Box) or np.ndim(observation) != 1:
        raise UserError(
            f"environment {spec.id}: observations of space {space} cannot be made vectors; expected a box with one "
            "axis, or a dictionary of such boxes"
        )
    flatten = functools.partial(flatten_observation, keys=keys)
    return gymnasium.wrappers.TransformObservation(environment, flatten, _box(len(flatten(observation))))


def keys_of(environment: "gymnasium.Env[np.ndarray, Any]") -> tuple[str, ...]:
    """The keys by which an environment of `make_environment` makes vectors; none where it has vectors itself."""
    keys: tuple[str, ...] = environment.func.keywords["keys"]  # type: ignore[attr-defined]
    return keys


def _observation_keys(environment_id: str, environment: "gymnasium.Env") -> tuple[str, ...]:
    """Decided by the start of an episode and some steps: at the start alone entries may be equal by chance."""
    environment.action_space.seed(0)
    observations = [environment.reset(seed=0)[0]]
    for _ in range(_STEPS_TO_DECIDE):
        observation, _, terminated, truncated, _ = environment.step(environment.action_space.sample())
        observations.append(observation)
        if terminated or truncated:
            break
    try:
        return observation_keys(environment.observation_space, observations)
    except UserError as error:
        raise UserError(f"environment {environment_id}: {error}") from error


def make_unflattened(spec: EnvironmentSpec, *, lean: bool = False) -> "gymnasium.Env":
    """The environment with its own observations; arguments and errors as in `make_environment`."""
    registered = copy.deepcopy(find_registered(spec.id))
    import gymnasium

    if lean and registered.entry_point == _POINT_MAZE:
        registered.entry_point = _lean_point_maze()
    limit = {} if spec.max_episode_steps is None else {"max_episode_steps": spec.max_episode_steps}
    try:
        with _quiet(), ogbench.quiet():
            environment = gymnasium.make(registered, disable_env_checker=True, **limit, **copy.deepcopy(spec.kwargs))
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise UserError(_missing(spec.id, error)) from error
    except TypeError as error:
        raise UserError(
            f"environment {spec.id} does not take the arguments {spec.kwargs}: {first_line(error)}"
        ) from error
    # What an environment raises at arguments that a file names has no common base.
    except Exception as error:
        raise UserError(f"environment {spec.id} cannot be made with {spec.kwargs}: {first_line(error)}") from error
    _remove_model_file(environment)
    if ogbench.is_ogbench(registered.entry_point):
        ogbench.settle(environment.unwrapped)
    return wrap(environment, spec.wrappers)


def _box(size: int) -> "gymnasium.spaces.Box":
    import gymnasium

    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)


def find_registered(environment_id: str) -> "gymnasium.envs.registration.EnvSpec":
    """The registered spec of an id; what Gymnasium alone does not know is registered first.

    D4RL's mazes, such as `jaxrl_srpo/antmaze-umaze-v2`, `jaxrl_srpo/Manipulation-v0` and `jaxrl_srpo/Star-v0` are ours;
    for others OGBench, if it is one of its single tasks, or Gymnasium-Robotics is imported.

    Raises:
      UserError: the id is unknown, or Gymnasium is not installed.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise UserError(
            f"environment {environment_id} needs Gymnasium ({first_line(error)}); pip install gymnasium"
        ) from error
    if environment_id.startswith(d4rl_layouts.NAMESPACE):
        _register_mazes()
        _register_ours()
    ogbench.register(environment_id)
    missing = None if environment_id in gymnasium.registry else _register_robotics(environment_id)
    try:
        with _quiet():
            return gymnasium.spec(environment_id)
    except (gymnasium.error.Error, ImportError) as error:
        close = difflib.get_close_matches(environment_id, sorted(gymnasium.registry), n=3, cutoff=0.6)
        hint = f"; closest: {', '.join(close)}" if close else ""
        install = f"; Gymnasium-Robotics is not installed: {_INSTALL}" if missing else ""
        own = "" if ":" in environment_id else f"; if a module of yours registers it: --env=MODULE:{environment_id}"
        raise UserError(f"unknown environment {environment_id!r}{hint}{install}{own}") from error


def import_environment(named: str) -> str:
    """The id that a person names as `Name-v0` or `module:Name-v0`, once that module is imported.

    `gymnasium.make` takes such names too. What a file names must not come here.

    Raises:
      UserError: there is no such module.
    """
    module, separator, environment_id = named.rpartition(":")
    if separator:
        import_named(module, f"--env={named}")
    return environment_id


def with_time_limit(spec: EnvironmentSpec, longest: int) -> EnvironmentSpec:
    """The spec, with a limit of `longest` steps where neither it nor its registration has one.

    Without a limit an evaluation might never end. An id that nobody registers is left to `make_environment`.
    """
    if spec.max_episode_steps is not None or longest < 1:
        return spec
    try:
        registered = find_registered(spec.id).max_episode_steps
    except UserError:
        return spec
    return spec if registered is not None else dataclasses.replace(spec, max_episode_steps=longest)


def is_registered_as(environment_id: str, entry_point: str) -> bool:
    """Whether an installed package registers an id as its own: by this entry point, or by another of that package.

    An entry point that a file names is compared only, never imported. An id that nobody registers is left to
    `make_environment`, which says so.
    """
    try:
        registered = find_registered(environment_id).entry_point
    except UserError:
        return True
    own = registered if isinstance(registered, str) else getattr(registered, "__module__", "")
    return own == entry_point or own.partition(".")[0] == entry_point.partition(":")[0].partition(".")[0]


def _register_mazes() -> None:
    """Registers D4RL's mazes with Gymnasium, unless they are registered."""
    import gymnasium

    for task in d4rl_layouts.task_names():
        if d4rl_layouts.NAMESPACE + task not in gymnasium.registry:
            ant = task.startswith("antmaze")
            gymnasium.register(
                d4rl_layouts.NAMESPACE + task,
                entry_point=f"jaxrl_srpo.envs.d4rl_mazes:{'AntMaze' if ant else 'PointMaze'}",
                max_episode_steps=d4rl.time_limit(task),
                kwargs={"maze_map": d4rl_layouts.maze_map(task)} | ({} if ant else {"dense": "-dense" in task}),
            )


def _register_ours() -> None:
    """Registers our other environments with Gymnasium, unless they are registered."""
    import gymnasium

    for environment_id, (entry_point, limit) in _OURS.items():
        if environment_id not in gymnasium.registry:
            gymnasium.register(environment_id, entry_point=entry_point, max_episode_steps=limit)


def _register_robotics(environment_id: str) -> ImportError | None:
    """Registers Gymnasium-Robotics' environments; returns the error if it cannot be imported."""
    import gymnasium

    notices = io.StringIO()
    try:
        # Importing prints a notice on the rewards of some Adroit tasks; it is passed on only where it matters.
        with contextlib.redirect_stderr(notices):
            import gymnasium_robotics
    except ImportError as error:
        return error
    if "Adroit" in environment_id:
        sys.stderr.write(notices.getvalue())
    gymnasium.register_envs(gymnasium_robotics)
    return None


def _missing(environment_id: str, error: Exception) -> str:
    if "mujoco_py" in str(error) or "mujoco-py" in str(error):
        name = environment_id.rpartition("-v")[0]
        return f"environment {environment_id} needs mujoco-py, which is no longer supported; use {name}-v4 or {name}-v5"
    return f"environment {environment_id} needs MuJoCo ({first_line(error)}); install it: {_INSTALL}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Gymnasium's advice to use v5; D4RL's data fit v4, whose observations are those of v2."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is out of date", category=DeprecationWarning)
        yield


def _remove_model_file(environment: "gymnasium.Env") -> None:
    """Removes the file that mazes of other packages leave in the temporary folder; it is read once only."""
    path = getattr(environment.unwrapped, "tmp_xml_file_path", None) or _model_file_of_ogbench(environment)
    if path is not None:
        with contextlib.suppress(OSError):
            os.remove(path)


def _model_file_of_ogbench(environment: "gymnasium.Env") -> str | None:
    """The same of OGBench's mazes; those of other packages are read from where these are installed."""
    path = getattr(environment.unwrapped, "fullpath", None)
    mazes = environment.spec is not None and ogbench.is_ogbench(environment.spec.entry_point)
    return path if mazes and path and os.path.dirname(path) == tempfile.gettempdir() else None


@functools.cache
def _lean_point_maze() -> Any:
    """Gymnasium-Robotics' PointMaze without textures, made on first use because its bases must be imported."""
    from gymnasium_robotics.envs.maze.maze_v4 import MazeEnv
    from gymnasium_robotics.envs.maze.point_maze import PointMazeEnv

    class MazeWithoutTextures(MazeEnv):
        """Takes the textures out of the model file between writing it here and loading it in `PointMazeEnv`."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            tree = ElementTree.parse(self.tmp_xml_file_path)
            for asset in tree.iter("asset"):
                asset.clear()
            for geom in tree.iter("geom"):
                geom.attrib.pop("material", None)
            tree.write(self.tmp_xml_file_path)

    class LeanPointMaze(PointMazeEnv, MazeWithoutTextures):
        """PointMaze that cannot be rendered in color."""

    return LeanPointMaze
