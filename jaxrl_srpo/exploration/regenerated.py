"""D4RL's recipe for locomotion data (arXiv 2004.07219, section 5) with the SAC of this project, for MuJoCo tasks.

SAC learns online, and the five parts are
  random         episodes of uniformly random actions; D4RL's come from a freshly initialized policy
  medium         episodes of the first snapshot whose return passes a third of the way from random to expert
  medium-replay  SAC's whole buffer at that snapshot
  medium-expert  the episodes of medium and of expert
  expert         episodes of SAC's last policy
Policies sample their actions. Reference returns are the mean returns of `random` and of `expert`: scores compare with
each other, not with D4RL's.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from jaxrl_srpo.data import minari_writer, table
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.minari_files import read_metadata
from jaxrl_srpo.data.names import REGENERATED
from jaxrl_srpo.data.reading import readable
from jaxrl_srpo.envs.collection import (
    RecordedEpisode,
    StepPolicy,
    Task,
    Transitions,
    cut,
    find_ends,
    find_task,
    mean_return,
    play,
)
from jaxrl_srpo.envs.make import make_unflattened
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.checkpoint import Progress
from jaxrl_srpo.io.files import locked, print_message
from jaxrl_srpo.methods import sac
from jaxrl_srpo.nn.policies import TanhGaussianPolicy
from jaxrl_srpo.population.interaction import Loop
from jaxrl_srpo.population.member import make_members, stack
from jaxrl_srpo.population.online import GymnasiumRun
from jaxrl_srpo.types import Array, Spec

KINDS = ("random", "medium", "medium-replay", "medium-expert", "expert")
_NAME = re.compile(rf"{REGENERATED}(?P<task>[a-z0-9]+)/({'|'.join(KINDS)})-v0")
_SNAPSHOTS, _EPISODES = 50, 10
_RECIPE_KEY = "regenerated_recipe"
# Folded into the seed, so that evaluations and each kind of data have starts and noise of their own.
_LEARN, _EVALUATE, _RANDOM, _EXPERT, _MEDIUM = range(5)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What determines the data; the defaults are D4RL's sizes.

    Attributes:
      steps: environment steps of SAC, one update each.
      transitions: least number in `random`, `medium` and `expert`; the last episodes are finished.
      seed: determines everything random.
    """

    steps: int = 1_000_000
    transitions: int = 1_000_000
    seed: int = 0

    def check(self) -> None:
        """Refuses numbers out of range.

        Raises:
          DatasetError: naming the number.
        """
        if self.steps < _SNAPSHOTS:
            raise DatasetError(f"--steps={self.steps}: must be at least {_SNAPSHOTS}, one per snapshot")
        if self.transitions < 1:
            raise DatasetError(f"--transitions={self.transitions}: must be at least 1")
        for name, number in (("steps", self.steps), ("transitions", self.transitions)):
            if number >= 2**31:
                raise DatasetError(f"--{name}={number}: must be at most 2^31 - 1")
        if not 0 <= self.seed < 2**31:
            raise DatasetError(f"--seed={self.seed}: must be from 0 to 2^31 - 1")


class Snapshot(NamedTuple):
    """A policy on the way.

    Attributes:
      step: environment steps that it learned from, int64 [].
      mean_return: mean return of `_EPISODES` episodes with sampled actions, float64 [].
      policy: the policy.
    """

    step: np.ndarray | np.int64
    mean_return: np.ndarray | np.float64
    policy: TanhGaussianPolicy


class Part(NamedTuple):
    """One of the five parts: its episodes, and a phrase that says where they come from."""

    episodes: list[RecordedEpisode]
    origin: str


def make_datasets(name: str, recipe: Recipe) -> list[str]:
    """Makes the missing ones of a task's five datasets, and returns the five Minari ids.

    Each appears in Minari's storage whole or not at all. After a kill the same command continues from SAC's last
    snapshot and writes what is missing. Equal recipes give equal data on one machine with the same versions.

    Args:
      name: any of the five, `regenerated/TASK/KIND-v0`, for instance `regenerated/hopper/medium-v0`.
      recipe: sizes and seed.

    Raises:
      DatasetError: the name or a number of the recipe is wrong, the storage holds datasets of another recipe or cannot
        be written, or SAC's last policy does not beat random actions.
      UserError: MuJoCo is missing, or the environment is not suitable.
    """
    environment, prefix = find_environment(name), name.rpartition("/")[0]
    recipe.check()
    ids = {kind: f"{prefix}/{kind}-v0" for kind in KINDS}
    with _turn(prefix):
        missing = [kind for kind in KINDS if not minari_writer.exists(ids[kind])]
        for kind in set(KINDS) - set(missing):
            _check_recipe(ids[kind], recipe)
        if missing:
            task = find_task(environment)
            learning = f".{prefix.replace('/', '-')}-{recipe.steps}-{recipe.seed}.learning"
            progress = Progress(minari_writer.storage_root() / learning)
            parts = play_parts(task, recipe, progress)
            for kind in missing:
                _write(ids[kind], task, parts[kind], _describe(kind, parts, task, recipe))
            progress.clear()
    return list(ids.values())


def find_environment(name: str) -> EnvironmentSpec:
    """The environment of a dataset's name: the newest version of the Gymnasium MuJoCo task that it names.

    Raises:
      DatasetError: the name is not that of a regenerated dataset.
    """
    import gymnasium

    registered = sorted(gymnasium.registry.values(), key=lambda spec: spec.version or 0)
    known = {
        spec.name.lower(): spec.id for spec in registered if str(spec.entry_point).startswith("gymnasium.envs.mujoco")
    }
    match = _NAME.fullmatch(name)
    if match is None or match["task"] not in known:
        raise DatasetError(
            f"{name}: cannot be made here; expected {REGENERATED}TASK/KIND-v0 with KIND one of {', '.join(KINDS)} and "
            f"TASK one of {', '.join(sorted(known))}"
        )
    return EnvironmentSpec(known[match["task"]])


def play_parts(task: Task, recipe: Recipe, progress: Progress) -> dict[str, Part]:
    """The five parts by name; `progress` as in `learn`.

    Raises:
      DatasetError: the last policy does not beat random actions, or SAC diverged.
    """
    snapshots, buffer = learn(task, recipe, progress)
    last = snapshots[-1]
    random = _collect(task, _random_policy(task, recipe.seed), recipe, _RANDOM)
    expert = _collect(task, _sampled(last.policy, recipe.seed, _EXPERT), recipe, _EXPERT)
    low, high = mean_return(random), mean_return(expert)
    if high <= low:
        raise DatasetError(
            f"SAC returns {high:.5g} in {task.environment.id} after {recipe.steps} steps, random actions {low:.5g}; "
            "give more --steps"
        )
    # The last one is the expert, even if its evaluation was unlucky.
    middle = next((one for one in snapshots if one.mean_return >= low + (high - low) / 3.0), last)
    medium = _collect(task, _sampled(middle.policy, recipe.seed, _MEDIUM), recipe, _MEDIUM)
    until = Transitions(*(column[: int(middle.step)] for column in buffer))
    at = f"SAC's policy after {{}} of {recipe.steps} steps"
    return {
        "random": Part(random, "uniformly random actions"),
        "medium": Part(medium, at.format(middle.step)),
        "medium-replay": Part(cut(task, until, find_ends(until)), f"SAC's buffer after {middle.step} steps"),
        "medium-expert": Part([*medium, *expert], f"{at.format(middle.step)}, then {at.format(last.step)}"),
        "expert": Part(expert, at.format(last.step)),
    }


def learn(task: Task, recipe: Recipe, progress: Progress) -> tuple[list[Snapshot], Transitions]:
    """Trains SAC from the last checkpoint in `progress` on; returns its snapshots and its whole buffer.

    Raises:
      DatasetError: a loss or a parameter stopped being finite.
    """
    bounds = np.linspace(0, recipe.steps, _SNAPSHOTS + 1).astype(int).tolist()
    with contextlib.closing(_make_run(task, recipe)) as run:
        snapshots = _restore(run, progress)
        chunks = [*itertools.pairwise(bounds)][len(snapshots) :]
        title = f"SAC in {task.environment.id}"
        with tqdm.tqdm(total=_SNAPSHOTS, initial=len(snapshots), desc=title, disable=None) as bar:
            for start, stop in chunks:
                if (run.run(stop - start).diverged_at >= 0).any():
                    raise DatasetError(f"SAC diverged in {task.environment.id} before step {stop}; give another --seed")
                snapshots.append(_evaluate(task, recipe, stop, jax.tree.map(lambda x: x[0], run.policies)))
                _save(run, snapshots, progress)
                bar.update()
        rows = run.replay.rows[0, 0, : recipe.steps]
    return snapshots, _unpack(np.asarray(rows), len(task.action_low))


def _evaluate(task: Task, recipe: Recipe, step: int, policy: TanhGaussianPolicy) -> Snapshot:
    episodes = play(task, _sampled(policy, recipe.seed, _EVALUATE), _EPISODES, 1, (recipe.seed, _EVALUATE))
    return Snapshot(np.int64(step), np.float64(mean_return(episodes)), policy)


def _save(run: GymnasiumRun, snapshots: list[Snapshot], progress: Progress) -> None:
    progress.save(len(snapshots), {"run": run.checkpoint(), "snapshots": stack(snapshots)})


def _restore(run: GymnasiumRun, progress: Progress) -> list[Snapshot]:
    """Returns a run to its last checkpoint, if there is one; returns the snapshots until then."""
    first = Snapshot(np.int64(0), np.float64(0.0), jax.tree.map(lambda x: x[0], run.policies))

    def template(count: int) -> dict[str, Any]:
        return {"run": run.checkpoint_shapes(), "snapshots": stack([first] * count)}

    saved = progress.restore(template, print_message)
    if saved is None:
        return []
    run.restore(saved.tree["run"])
    return [jax.tree.map(lambda x, i=i: x[i], saved.tree["snapshots"]) for i in range(saved.step)]


def _make_run(task: Task, recipe: Recipe) -> GymnasiumRun:
    """One member in one environment."""
    members = make_members([_key(recipe.seed, _LEARN)], [sac.Settings()])
    first = min(1000, recipe.steps // 4)
    loop = Loop(capacity=recipe.steps, warmup_steps=first, random_steps=first)
    devices = jax.devices()[:1]
    return GymnasiumRun([task.environment], sac.AGENT, loop, members=members, frozen=None, devices=devices)


def _unpack(rows: np.ndarray, action_size: int) -> Transitions:
    observation_size = (rows.shape[1] - action_size - 2) // 2
    unpack: Any = table.unpack
    batch = unpack(rows, Spec(observation_size, action_size))
    return Transitions(
        batch.observations, batch.actions, batch.rewards, batch.next_observations, batch.discounts == 0.0
    )


def _collect(task: Task, act: StepPolicy, recipe: Recipe, purpose: int) -> list[RecordedEpisode]:
    """Whole episodes with at least `recipe.transitions` steps."""
    environments = int(np.clip(recipe.transitions // task.max_episode_steps, 1, _EPISODES))
    return play(task, act, environments, -(-recipe.transitions // environments), (recipe.seed, purpose))


def _key(seed: int, purpose: int) -> Array:
    return jax.random.fold_in(jax.random.key(seed), purpose)


def _sampled(policy: TanhGaussianPolicy, seed: int, purpose: int) -> StepPolicy:
    """A step policy that samples the policy's actions."""
    key = _key(seed, purpose)
    return lambda observations, number: np.asarray(_sample(policy, observations, key, np.int32(number)))


@jax.jit
def _sample(policy: TanhGaussianPolicy, observations: Array, key: Array, number: Array) -> Array:
    return policy.distribution(observations).sample(jax.random.fold_in(key, number))[0]


def _random_policy(task: Task, seed: int) -> StepPolicy:
    numbers, size = np.random.default_rng([seed, _RANDOM]), len(task.action_low)
    return lambda observations, _: numbers.uniform(-1.0, 1.0, (len(observations), size)).astype(np.float32)


@contextlib.contextmanager
def _turn(prefix: str) -> Iterator[None]:
    """A lock: one process at a time makes the datasets of a task."""
    root = minari_writer.storage_root()
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(root / prefix.replace("/", "-"), math.inf))
        except OSError as error:
            raise DatasetError(
                f"cannot write {prefix} at {root}: {error.strerror or error}; "
                "set MINARI_DATASETS_PATH to a folder that can be written"
            ) from error
        yield


def _check_recipe(dataset_id: str, recipe: Recipe) -> None:
    """Refuses a dataset of another recipe, whose reference returns would differ.

    Raises:
      DatasetError: the stored recipe differs, or is damaged.
    """
    stored = read_metadata(dataset_id).get(_RECIPE_KEY, "{}")
    with readable(f"{dataset_id}: {_RECIPE_KEY} of the metadata"):
        found = json.loads(stored)
    if found != dataclasses.asdict(recipe):
        raise DatasetError(
            f"{dataset_id} is here with the recipe {stored}; give the same, remove it, or set MINARI_DATASETS_PATH"
        )


def _describe(kind: str, parts: dict[str, Part], task: Task, recipe: Recipe) -> dict[str, Any]:
    return {
        "algorithm_name": "uniformly random actions" if kind == "random" else "SAC",
        "description": (
            f"Regenerated, not D4RL's own: {kind} of {task.environment.id}, {parts[kind].origin}. Reference returns "
            "are the mean returns of random and expert of the same recipe."
        ),
        "ref_min_score": mean_return(parts["random"].episodes),
        "ref_max_score": mean_return(parts["expert"].episodes),
        "requirements": ["mujoco", "gymnasium"],
        _RECIPE_KEY: json.dumps(dataclasses.asdict(recipe)),
    }


def _write(dataset_id: str, task: Task, part: Part, description: dict[str, Any]) -> None:
    def episodes(_: object) -> Iterator[dict[str, Any]]:
        return (episode.fields() for episode in part.episodes)

    make_environment = functools.partial(make_unflattened, task.environment)
    minari_writer.write_dataset(dataset_id, make_environment, episodes, description)
