"""D4RL's recipe with our own SAC, on the smallest task."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import minari
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.envs import collection
from jaxrl_srpo.envs.collection import Transitions
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.exploration import regenerated
from jaxrl_srpo.exploration.regenerated import KINDS, Recipe

pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")

PREFIX = "regenerated/invertedpendulum"
RECIPE = Recipe(steps=400, transitions=150, seed=3)
LIMIT = 4


@pytest.fixture(scope="module", autouse=True)
def few_snapshots() -> Iterator[None]:
    """Ten instead of fifty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regenerated, "_SNAPSHOTS", 10)
        yield


def make_with_a_break(root: pathlib.Path) -> None:
    """All five, made by a command that was interrupted once and began again."""
    evaluate = regenerated._evaluate

    def interrupt(task: Any, recipe: regenerated.Recipe, step: int, policy: Any) -> Any:
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


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("minari")
    make_with_a_break(root)
    return root


@pytest.fixture
def datasets(storage: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Dataset]:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(storage))
    return {kind: load_dataset(f"{PREFIX}/{kind}-v0") for kind in KINDS}


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


class Making(NamedTuple):
    """Where the five datasets of a making lie, and what SAC's buffer held at its end."""

    root: pathlib.Path
    buffer: Transitions


def dataset_in(root: pathlib.Path, kind: str) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        return load_dataset(f"{PREFIX}/{kind}-v0")


def make_in_a_row(root: pathlib.Path) -> Making:
    """All five, made without an interruption."""
    learn, held = regenerated.learn, []

    def keep(*arguments: Any) -> tuple[list[regenerated.Snapshot], Transitions]:
        snapshots, buffer = learn(*arguments)
        held.append(buffer)
        return snapshots, buffer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        patch.setattr(regenerated, "learn", keep)
        regenerated.make_datasets(f"{PREFIX}/random-v0", RECIPE)
    return Making(root, held[0])


@pytest.fixture(scope="module")
def in_a_row(tmp_path_factory: pytest.TempPathFactory) -> Making:
    return make_in_a_row(tmp_path_factory.mktemp("minari"))


def test_an_interrupted_making_gives_what_one_in_a_row_gives(
    storage: pathlib.Path, in_a_row: Making, tmp_path: pathlib.Path
) -> None:
    """A pair of makings was once seen to differ by rounding on a busy machine; then a second pair decides."""

    def fingerprints(root: pathlib.Path) -> list[str]:
        return [dataset_in(root, kind).fingerprint for kind in KINDS]

    assert not list(in_a_row.root.glob(".*.learning"))
    if fingerprints(storage) != fingerprints(in_a_row.root):
        again, whole = tmp_path / "interrupted", tmp_path / "in_a_row"
        again.mkdir()
        whole.mkdir()
        make_with_a_break(again)
        assert fingerprints(again) == fingerprints(make_in_a_row(whole).root)


def test_the_replay_part_is_the_buffer_in_order(in_a_row: Making) -> None:
    replay, buffer = dataset_in(in_a_row.root, "medium-replay"), in_a_row.buffer
    size = replay.size
    # It was cut at one of ten snapshots.
    assert size % (RECIPE.steps // 10) == 0
    for name in ("observations", "next_observations", "rewards"):
        np.testing.assert_array_equal(getattr(replay, name), getattr(buffer, name)[:size])
    np.testing.assert_array_equal(replay.terminals, buffer.terminations[:size])
    np.testing.assert_allclose(replay.actions, 3.0 * buffer.actions[:size], atol=1e-6)
    inside = ~replay.episode_ends[:-1]
    np.testing.assert_array_equal(replay.next_observations[:-1][inside], replay.observations[1:][inside])


def test_the_episode_under_way_when_the_buffer_ended_is_no_time_out(datasets: dict[str, Dataset]) -> None:
    replay = datasets["medium-replay"]
    assert replay.timeouts == 0
    # Every episode of the pendulum that is complete ended in a terminal state.
    assert len(replay.episode_returns) == int(replay.terminals.sum())
    assert int(replay.episode_ends.sum()) == len(replay.episode_returns) + (not replay.terminals[-1])


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


@given(st.lists(st.integers(1, LIMIT), min_size=1, max_size=6), st.integers(0, 2**31 - 1))
def test_a_buffer_is_cut_into_the_episodes_it_was_filled_with(lengths: list[int], seed: int) -> None:
    """Short episodes terminate, those of `LIMIT` steps may; a short last one may be under way when the buffer ends."""
    random = np.random.default_rng(seed)
    chains = [random.normal(size=(length + 1, 2)).astype(np.float32) for length in lengths]
    terminated = [length < LIMIT or bool(random.integers(2)) for length in lengths]
    terminated[-1] = bool(random.integers(2))
    actions = random.uniform(-1.0, 1.0, (sum(lengths), 1)).astype(np.float32)
    terminations = np.zeros(sum(lengths), bool)
    terminations[np.cumsum(lengths) - 1] = terminated
    transitions = Transitions(
        np.concatenate([chain[:-1] for chain in chains]),
        actions,
        np.arange(float(sum(lengths))),
        np.concatenate([chain[1:] for chain in chains]),
        terminations,
    )
    bound = np.full(1, 3.0, np.float32)
    task = collection.Task(EnvironmentSpec("x"), -bound, bound, np.dtype(np.float64), LIMIT)
    episodes = collection.cut(task, transitions, collection.find_ends(transitions))
    for episode, chain, stopped in zip(episodes, chains, terminated, strict=True):
        np.testing.assert_array_equal(episode.observations, chain)
        by_time = not stopped and len(chain) - 1 == LIMIT
        assert (episode.terminations[-1], episode.truncations[-1]) == (stopped, by_time)
        assert not (episode.terminations | episode.truncations)[:-1].any()
    np.testing.assert_allclose(np.concatenate([episode.actions for episode in episodes]), 3.0 * actions, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([episode.rewards for episode in episodes]), transitions.rewards)
