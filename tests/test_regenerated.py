"""D4RL's recipe with our own SAC, on the smallest task."""

import json
import pathlib
from collections.abc import Iterator

import minari
import numpy as np
import pytest

from jaxrl_srpo import regenerated
from jaxrl_srpo.data import loading
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.envs import collection
from jaxrl_srpo.envs.collection import Transitions
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.regenerated import KINDS, Recipe

pytest.importorskip("mujoco")

PREFIX = "regenerated/invertedpendulum"
RECIPE = Recipe(steps=400, transitions=150, seed=3)


@pytest.fixture(scope="module", autouse=True)
def few_snapshots() -> Iterator[None]:
    """Ten instead of fifty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regenerated, "_SNAPSHOTS", 10)
        yield


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """All five, made by a command that was interrupted once and began again."""
    root = tmp_path_factory.mktemp("minari")
    evaluate = regenerated._evaluate

    def interrupt(task, recipe, step, policy):
        if step > 200:
            raise KeyboardInterrupt
        return evaluate(task, recipe, step, policy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        patch.setattr(regenerated, "_evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            regenerated.make_datasets(f"{PREFIX}/medium-v0", RECIPE)
        # Minari lists nothing of what was begun.
        assert not minari.list_local_datasets()
        patch.setattr(regenerated, "_evaluate", evaluate)
        assert regenerated.make_datasets(f"{PREFIX}/medium-v0", RECIPE) == [f"{PREFIX}/{kind}-v0" for kind in KINDS]
    return root


@pytest.fixture
def datasets(storage: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Dataset]:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(storage))
    return {kind: loading.load_dataset(f"{PREFIX}/{kind}-v0") for kind in KINDS}


def test_scores_are_0_for_random_and_100_for_expert(datasets: dict[str, Dataset]) -> None:
    for kind, score in (("random", 0.0), ("expert", 100.0)):
        reference = datasets[kind].reference
        assert reference is not None
        assert reference.normalize(datasets[kind].episode_returns).mean() == pytest.approx(score, abs=1e-4)


def test_every_part_says_what_it_is(storage: pathlib.Path, datasets: dict[str, Dataset]) -> None:
    for kind, dataset in datasets.items():
        assert dataset.environment == EnvironmentSpec("InvertedPendulum-v5", {}, 1000)
        metadata = minari.load_dataset(f"{PREFIX}/{kind}-v0").storage.metadata
        assert metadata["description"].startswith(f"Regenerated, not D4RL's own: {kind} of InvertedPendulum-v5")
        assert json.loads(metadata["regenerated_recipe"]) == {"steps": 400, "transitions": 150, "seed": 3}


def test_policies_fill_their_parts_with_whole_episodes(datasets: dict[str, Dataset]) -> None:
    for kind in ("random", "medium", "expert"):
        dataset = datasets[kind]
        assert len(dataset.rewards) >= RECIPE.transitions
        # Episodes of a falling pendulum all end in a terminal state, and nothing follows the last one.
        assert np.flatnonzero(dataset.episode_ends).tolist() == np.flatnonzero(dataset.terminals).tolist()
    assert len(datasets["medium-expert"].rewards) == len(datasets["medium"].rewards) + len(datasets["expert"].rewards)
    lengths = [len(datasets[kind].rewards) for kind in ("medium", "expert")]
    both = np.concatenate([datasets["medium"].observations, datasets["expert"].observations])
    np.testing.assert_array_equal(datasets["medium-expert"].observations, both)
    assert min(lengths) > 0


def test_an_interrupted_making_gives_what_one_in_a_row_gives(
    datasets: dict[str, Dataset], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    regenerated.make_datasets(f"{PREFIX}/random-v0", RECIPE)
    for kind, dataset in datasets.items():
        assert loading.load_dataset(f"{PREFIX}/{kind}-v0").fingerprint == dataset.fingerprint
    assert not [path.name for path in tmp_path.glob(".*.learning")]


def test_the_replay_part_is_the_buffer_in_order(datasets: dict[str, Dataset]) -> None:
    replay = datasets["medium-replay"]
    # What the pendulum is pushed to from one step to the next, within episodes.
    inside = ~replay.episode_ends[:-1]
    np.testing.assert_array_equal(replay.next_observations[:-1][inside], replay.observations[1:][inside])
    # It begins with random actions, which fill the range; the buffer was cut at one of ten snapshots.
    assert len(replay.rewards) % (RECIPE.steps // 10) == 0
    assert np.abs(replay.actions[:100]).max() > 2.5


def test_what_is_here_stays(storage: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(storage))
    monkeypatch.setattr(regenerated, "play_parts", None)
    assert len(regenerated.make_datasets(f"{PREFIX}/expert-v0", RECIPE)) == 5
    with pytest.raises(DatasetError, match=r"is here with the recipe .*give the same, remove it, or set MINARI"):
        regenerated.make_datasets(f"{PREFIX}/expert-v0", Recipe(steps=500, transitions=150, seed=3))


@pytest.mark.parametrize(
    ("name", "recipe", "message"),
    [
        ("regenerated/hopper/medum-v0", RECIPE, "KIND one of random, medium, medium-replay, medium-expert, expert"),
        ("regenerated/hoper/medium-v0", RECIPE, "TASK one of ant, halfcheetah, hopper"),
        ("regenerated/hopper/medium", RECIPE, "cannot be made here"),
        (f"{PREFIX}/medium-v0", Recipe(steps=9), "--steps=9: must be at least 10"),
        (f"{PREFIX}/medium-v0", Recipe(transitions=0), "--transitions=0: must be at least 1"),
        (f"{PREFIX}/medium-v0", Recipe(seed=-1), "--seed=-1: must be from 0"),
    ],
)
def test_bad_input_is_refused(name: str, recipe: Recipe, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        regenerated.make_datasets(name, recipe)


def test_a_buffer_is_cut_where_it_was_cut() -> None:
    """Three episodes: one terminates, one is cut off by time, one is under way when the buffer ends."""
    random = np.random.default_rng(0)
    chains = [random.normal(size=(length + 1, 2)).astype(np.float32) for length in (3, 2, 4)]
    observations = np.concatenate([chain[:-1] for chain in chains])
    next_observations = np.concatenate([chain[1:] for chain in chains])
    terminations = np.zeros(9, bool)
    terminations[2] = True
    actions, rewards = random.uniform(-1.0, 1.0, (9, 1)).astype(np.float32), np.arange(9.0)
    transitions = Transitions(observations, actions, rewards, next_observations, terminations)
    assert collection.find_ends(transitions).tolist() == [2, 4, 8]
    bounds = np.ones(1, np.float32)
    task = collection.Task(EnvironmentSpec("x"), -3.0 * bounds, 3.0 * bounds, np.dtype(np.float64), 5)
    episodes = collection.cut(task, transitions, collection.find_ends(transitions))
    for episode, chain in zip(episodes, chains, strict=True):
        np.testing.assert_array_equal(episode.observations, chain)
    assert [episode.terminations.any() for episode in episodes] == [True, False, False]
    assert [episode.truncations[-1] for episode in episodes] == [False, True, True]
    np.testing.assert_allclose(np.concatenate([episode.actions for episode in episodes]), 3.0 * actions, atol=1e-6)
