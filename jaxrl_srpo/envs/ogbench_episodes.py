"""Episodes of OGBench's oracles, each a function of its seeds alone.

OGBench draws from NumPy's global generator, from its environment's and from its action space's; all of them are seeded
before every episode, so whoever plays here must not need the global one. The model and the environment's numbers are
put back as they were when it was new: locks, handles and targets are kept from one episode to the next otherwise.
"""

import copy
import hashlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxrl_srpo.envs.ogbench import import_package
from jaxrl_srpo.envs.ogbench_recipes import LEAST_NORM, SMOOTHING, Recipe
from jaxrl_srpo.errors import DatasetError

Cell = tuple[int, int]

# Noise of an action's entries in units of the first ones': position, yaw, gripper.
_SPREAD = np.array([1.0, 1.0, 1.0, 3.0, 10.0])
_STITCH_CELLS = 4
_NEIGHBORS = ((-1, 0), (0, -1), (1, 0), (0, 1))
_PLAIN = (bool, int, float, str, tuple, np.ndarray, np.generic, type(None))


class Streams(NamedTuple):
    """The seeds of an episode.

    Attributes:
      own: draws what the recipe draws.
      global_seed: of NumPy's global generator, [8] uint32.
      environment: becomes the environment's generator.
      actions: seed of the action space.
    """

    own: np.random.Generator
    global_seed: np.ndarray
    environment: np.random.Generator
    actions: int


class Episode(NamedTuple):
    """One episode of T rows.

    Attributes:
      columns: OGBench's arrays by name, [T, ...] each.
      finished: targets of each kind that the oracle was done with, [kinds] int64.
      reached: those among them where things were as the target wanted, [kinds].
      pursued: rows in which the target was of that kind, [kinds].
      redone: times that the episode was thrown away and played again.
    """

    columns: dict[str, np.ndarray]
    finished: np.ndarray
    reached: np.ndarray
    pursued: np.ndarray
    redone: int


class Player(Protocol):
    """Plays episodes of a recipe."""

    def play(self, streams: Streams, rows: int) -> Episode:
        """One episode of so many rows."""
        ...


def make_streams(name: str, split: str, seed: int, episode: int) -> Streams:
    """The seeds of an episode: they depend on nothing else than its dataset, its seed and its number.

    Args:
      name: of the dataset.
      split: `train` or `val`, whose episodes are counted on their own.
      seed: of the dataset.
      episode: from 0.
    """
    name_number = int.from_bytes(hashlib.sha256(f"{name}/{split}".encode()).digest()[:8], "big")
    own, other, environment, actions = np.random.SeedSequence([name_number, seed, episode]).spawn(4)
    return Streams(
        np.random.default_rng(own),
        other.generate_state(8),
        np.random.default_rng(environment),
        int(actions.generate_state(1)[0]) % 2**31,
    )


def make_player(recipe: Recipe) -> Player:
    """What plays a recipe's episodes; takes half a second.

    Raises:
      UserError: OGBench is not installed.
      DatasetError: its observations are not those of the recipe.
    """
    stage = _Stage(recipe)
    size = stage.environment.observation_space.shape[0]
    if size != recipe.observation_size:
        raise DatasetError(
            f"{recipe.name}: ogbench's {recipe.environment_id} has {size} observations instead of "
            f"{recipe.observation_size}; install a version of ogbench that the recipe is for (1.2)"
        )
    return _Walker(stage, recipe) if recipe.is_maze else _Manipulator(stage, recipe)


class _Stage:
    """An environment that begins every episode as if it were new."""

    def __init__(self, recipe: Recipe) -> None:
        import_package(recipe.environment_id)
        import gymnasium

        options: dict[str, Any] = {} if recipe.is_maze else {"mode": "data_collection"}
        made: Any = gymnasium.make(recipe.environment_id, disable_env_checker=True, terminate_at_goal=False, **options)
        self.environment: Any = made.unwrapped
        if recipe.is_maze:
            # OGBench writes the maze to a temporary file, loads it and leaves it there.
            os.remove(self.environment.fullpath)
        # The first reset builds the arm's model.
        _seed_global(np.zeros(1, np.uint32))
        self.environment.reset(seed=0)
        held = vars(self.environment)
        self._names = ("_model", "_data") if "_model" in held else ("model", "data")
        self._model = copy.copy(held[self._names[0]])
        self._plain = copy.deepcopy({name: value for name, value in held.items() if isinstance(value, _PLAIN)})

    def clear(self, streams: Streams) -> None:
        """Makes the environment new and seeds all that draws."""
        import mujoco

        vars(self.environment).update(copy.deepcopy(self._plain))
        model = copy.copy(self._model)
        for name, value in zip(self._names, (model, mujoco.MjData(model)), strict=True):
            setattr(self.environment, name, value)
        self.environment.np_random = streams.environment
        _seed_global(streams.global_seed)


def _seed_global(seed: np.ndarray) -> None:
    np.random.seed(seed)  # noqa: NPY002 - it is what OGBench draws from


class _Record:
    """The rows of an episode as they come."""

    def __init__(self, recipe: Recipe, rows: int) -> None:
        self._kinds, self._buttons, self._length = recipe.kinds, recipe.has_buttons, rows
        self._rows: dict[str, list[Any]] = {}
        self.finished, self.reached, self.pursued = (np.zeros(len(recipe.kinds), np.int64) for _ in range(3))

    def add(self, kind: str, observation: np.ndarray, action: np.ndarray, info: dict[str, Any]) -> None:
        """A row: where the step began, its action, and what the environment said after it."""
        row = {"observations": observation, "actions": action, "qpos": info["prev_qpos"], "qvel": info["prev_qvel"]}
        if self._buttons:
            row["button_states"] = info["prev_button_states"]
        for name, value in row.items():
            self._rows.setdefault(name, []).append(value)
        self.pursued[self._kinds.index(kind)] += 1

    def finish(self, kind: str, reached: bool) -> None:
        """A target that the oracle is done with."""
        self.finished[self._kinds.index(kind)] += 1
        self.reached[self._kinds.index(kind)] += reached

    def episode(self, redone: int = 0) -> Episode:
        """All of it, in the types of OGBench's files."""
        columns = {
            name: np.array(rows, np.int64 if name == "button_states" else np.float32)
            for name, rows in self._rows.items()
        }
        columns["terminals"] = np.arange(self._length) == self._length - 1
        return Episode(columns, self.finished, self.reached, self.pursued, redone)


class _Manipulator:
    """The arm; `generate_manipspace.py` is its order of events."""

    def __init__(self, stage: _Stage, recipe: Recipe) -> None:
        self._stage, self._recipe = stage, recipe
        self._oracles = dict(_make_oracles(stage.environment, recipe))

    def play(self, streams: Streams, rows: int) -> Episode:
        """See `Player`; a scene whose cube gets out of sight is played again."""
        self._stage.clear(streams)
        redone = 0
        while True:
            episode = self._attempt(streams.own, rows).episode(redone)
            if self._recipe.family != "scene" or _stays_in_sight(episode.columns["qpos"]):
                return episode
            redone += 1

    def _attempt(self, own: np.random.Generator, rows: int) -> _Record:
        environment, record = self._stage.environment, _Record(self._recipe, rows)
        observation, info = environment.reset()
        stacking = own.uniform(*self._recipe.stacking)
        spread = own.uniform(0.0, self._recipe.noise) * _SPREAD
        kind = str(info["privileged/target_task"])
        self._oracles[kind].reset(observation, info)
        for _ in range(rows):
            action = self._act(kind, observation, info, spread, own)
            following, _, _, _, info = environment.step(action)
            record.add(kind, observation, action, info)
            if self._oracles[kind].done:
                record.finish(kind, bool(info["success"]))
                # The next action is still chosen by `info` of before the new target, as in the published data.
                seen, told = environment.set_new_target(p_stack=stacking)
                kind = str(told["privileged/target_task"])
                self._oracles[kind].reset(seen, told)
            observation = following
        return record

    def _act(
        self, kind: str, observation: np.ndarray, info: dict[str, Any], spread: np.ndarray, own: np.random.Generator
    ) -> np.ndarray:
        if own.random() < self._recipe.random_actions:
            return own.uniform(-1.0, 1.0, len(spread)).astype(np.float32)
        action = np.array(self._oracles[kind].select_action(observation, info))
        if self._recipe.style == "noisy":
            action = action + own.normal(0.0, spread)
        return np.clip(action, -1.0, 1.0)


def _make_oracles(environment: Any, recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """An oracle for every kind of target."""
    import importlib

    style = "plan" if recipe.style == "play" else "markov"
    for kind in recipe.kinds:
        module = importlib.import_module(f"ogbench.manipspace.oracles.{style}.{kind}_{style}")
        oracle = getattr(module, f"{kind.capitalize()}{style.capitalize()}Oracle")
        options: dict[str, Any] = {"min_norm": LEAST_NORM}
        if style == "plan":
            options = {"noise": recipe.noise, "noise_smoothing": SMOOTHING}
        if recipe.family.startswith("puzzle"):
            options["gripper_always_closed"] = True
        if recipe.family == "scene" and style == "markov" and kind == "cube":
            # The recipe's number; the class of ogbench 1.2 takes 200 at every reset whatever it is given.
            options["max_step"] = 100
        yield kind, oracle(env=environment, **options)


def _stays_in_sight(qpos: np.ndarray) -> bool:
    """Whether a scene's cube is seen by the camera in all rows, or in the drawer; `qpos` [T, n]."""
    y, z = qpos[:, 15], qpos[:, 16]
    return not ((y >= 0.29) | ((y <= -0.3) & ((z < 0.06) | (z > 0.08)))).any()


class _Walker:
    """The point in a maze; `generate_locomaze.py` is its order of events."""

    def __init__(self, stage: _Stage, recipe: Recipe) -> None:
        self._stage, self._recipe = stage, recipe
        self._free, self._subgoals = stage.environment.maze_map == 0, dict[tuple[Cell, Cell], np.ndarray]()
        self._cells = [(int(i), int(j)) for i, j in np.argwhere(self._free)]
        self._crossings = [cell for cell in self._cells if not is_hallway(self._free, cell)]

    def play(self, streams: Streams, rows: int) -> Episode:
        """See `Player`."""
        self._stage.clear(streams)
        environment, own = self._stage.environment, streams.own
        # It shakes the point before the start; the arm's action space is a new one whenever it is asked for.
        environment.action_space.seed(streams.actions)
        start = _choose(self._cells, own)
        goal = _choose(self._goals(start), own)
        record, reached = _Record(self._recipe, rows), False
        observation, _ = environment.reset(options={"task_info": {"init_ij": start, "goal_ij": goal}})
        for _ in range(rows):
            action = np.clip(self._direction() + own.normal(0.0, self._recipe.noise, 2), -1.0, 1.0)
            following, _, _, _, info = environment.step(action)
            record.add("goal", observation, action, info)
            reached = reached or bool(info["success"])
            if info["success"] and self._recipe.style == "navigate":
                record.finish("goal", True)
                environment.set_goal(_choose(self._crossings, own))
            observation = following
        if self._recipe.style == "stitch":
            record.finish("goal", reached)
        return record.episode()

    def _goals(self, start: Cell) -> list[Cell]:
        if self._recipe.style == "navigate":
            return self._crossings
        return cells_at(self._free, start, _STITCH_CELLS) or [start]

    def _direction(self) -> np.ndarray:
        """Where the way to the goal goes on, a vector of norm 1."""
        environment = self._stage.environment
        place, goal = environment.get_xy(), environment.cur_goal_xy
        # The next cell depends on the two cells alone, and searching for it takes longer than the physics.
        key = (environment.xy_to_ij(place), environment.xy_to_ij(goal))
        if key not in self._subgoals:
            self._subgoals[key] = environment.get_oracle_subgoal(place, goal)[0]
        way = self._subgoals[key] - place
        return way / (np.linalg.norm(way) + 1e-6)


def _choose(cells: list[Cell], own: np.random.Generator) -> Cell:
    return cells[int(own.integers(len(cells)))]


def is_hallway(free: np.ndarray, cell: Cell) -> bool:
    """Whether one can only go to and fro in a cell, in a straight line; `free` [rows, columns] bool, walls around."""
    i, j = cell
    upright, level = (free[i - 1, j], free[i + 1, j]), (free[i, j - 1], free[i, j + 1])
    return (all(upright) and not any(level)) or (all(level) and not any(upright))


def cells_at(free: np.ndarray, start: Cell, distance: int) -> list[Cell]:
    """The cells whose shortest way from a cell has so many steps; `free` as in `is_hallway`."""
    seen, front = {start}, [start]
    for _ in range(distance):
        around = [(i + di, j + dj) for i, j in front for di, dj in _NEIGHBORS]
        front = [cell for cell in dict.fromkeys(around) if free[cell] and cell not in seen]
        seen.update(front)
    return front
