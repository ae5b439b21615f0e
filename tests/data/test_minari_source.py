"""Minari datasets: the real door/human one, and small ones made here."""

import json
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces

from jaxrl_srpo.data import loading, minari_files, minari_source
from jaxrl_srpo.data.dataset import WrapperSpec
from jaxrl_srpo.data.units import measure_units
from jaxrl_srpo.errors import DatasetError


@pytest.fixture
def datasets(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def make(
    dataset_id: str,
    lengths: Sequence[int],
    *,
    observation: Callable[[int], Any] | None = None,
    terminated: Sequence[int] = (),
    unfinished: Sequence[int] = (),
    column: bool = False,
    **options: Any,
) -> None:
    """Episodes of given lengths; those in `terminated` end by termination, `unfinished` by nothing, others by time."""
    random = np.random.default_rng(0)
    observation = observation or (lambda rows: random.normal(size=(rows, 4)))
    buffers = []
    for index, steps in enumerate(lengths):
        ends = np.arange(steps) == steps - 1
        stop = index in terminated
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                observations=observation(steps + 1),
                actions=random.uniform(-1, 1, (steps, 2)).astype(np.float32),
                rewards=np.full((steps, 1) if column else steps, index, np.float64),
                terminations=ends & stop,
                truncations=ends & (not stop) & (index not in unfinished),
                infos=None,
            )
        )
    sample = observation(1)
    boxes = (
        spaces.Dict({key: spaces.Box(-np.inf, np.inf, value.shape[1:], np.float64) for key, value in sample.items()})
        if isinstance(sample, dict)
        else spaces.Box(-np.inf, np.inf, sample.shape[1:], np.float64)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Minari warns of every optional argument that is left out.
        minari.create_dataset_from_buffers(
            dataset_id,
            buffers,
            observation_space=boxes,
            action_space=options.pop("action_space", spaces.Box(-1.0, 1.0, (2,), np.float32)),
            data_format=options.pop("data_format", "hdf5"),
            author="test",
            author_email="test@example.org",
            algorithm_name="random",
            code_permalink="https://example.org",
            description="for a test",
            **options,
        )


def test_real_door_human(monkeypatch: pytest.MonkeyPatch, test_data: pathlib.Path) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(test_data / "minari"))
    data = minari_source.read_minari("D4RL/door/human-v2")
    assert (len(data.episode_returns), data.size) == (25, 6729)
    assert (data.observation_size, data.action_size) == (39, 28)
    assert (int(data.terminals.sum()), data.timeouts, data.family) == (0, 25, "adroit")
    assert data.environment is not None
    assert data.environment.id == "AdroitHandDoor-v1"
    assert (data.environment.kwargs, data.environment.max_episode_steps) == ({"reward_type": "dense"}, 200)
    assert not data.environment.goal_task
    assert data.reference is not None
    assert data.reference.expert == pytest.approx(2940.578369140625)
    assert data.episode_returns.mean() == pytest.approx(802.81, abs=0.01)
    np.testing.assert_array_equal(np.flatnonzero(data.episode_ends) + 1, np.cumsum(data.episode_lengths))


def test_no_step_is_dropped_and_ends_are_told_apart(datasets: pathlib.Path) -> None:
    make("mine/walk-v0", [3, 5, 2], terminated=(1,))
    data = minari_source.read_minari("mine/walk-v0", "short")
    assert (data.name, data.source, data.size) == ("short", "mine/walk-v0", 10)
    np.testing.assert_array_equal(np.flatnonzero(data.episode_ends), [2, 7, 9])
    np.testing.assert_array_equal(np.flatnonzero(data.terminals), [7])
    np.testing.assert_array_equal(data.episode_returns, [0, 5, 4])
    np.testing.assert_array_equal(data.episode_lengths, [3, 5, 2])
    assert data.timeouts == 2
    assert (data.environment, data.reference, data.family) == (None, None, "other")
    inside = ~data.episode_ends[:-1]
    np.testing.assert_array_equal(data.next_observations[:-1][inside], data.observations[1:][inside])
    assert data.observations.dtype == np.float32
    assert minari_source.read_minari("mine/walk-v0").fingerprint == data.fingerprint


def test_a_last_episode_that_was_cut_short_has_no_return(datasets: pathlib.Path) -> None:
    make("mine/buffer-v0", [3, 5, 2], terminated=(1,), unfinished=(2,))
    data = minari_source.read_minari("mine/buffer-v0")
    np.testing.assert_array_equal(np.flatnonzero(data.episode_ends), [2, 7, 9])
    np.testing.assert_array_equal(data.episode_returns, [0, 5])
    np.testing.assert_array_equal(data.episode_lengths, [3, 5])
    assert (data.size, data.timeouts) == (10, 1)
    make("mine/stump-v0", [4], unfinished=(0,))
    stump = minari_source.read_minari("mine/stump-v0")
    assert (stump.episode_lengths.tolist(), stump.timeouts) == ([4], 0)


def test_dictionary_observations_become_vectors(datasets: pathlib.Path) -> None:
    random = np.random.default_rng(1)

    def observation(rows: int) -> dict[str, Any]:
        state = random.normal(size=(rows, 4))
        return {"observation": state, "achieved_goal": state[:, :2], "desired_goal": np.full((rows, 2), 7.0)}

    make("mine/maze-v0", [4, 4], observation=observation)
    data = minari_source.read_minari("mine/maze-v0", env="PointMaze_UMaze-v3")
    assert data.observation_size == 6
    np.testing.assert_array_equal(data.observations[:, 4:], 7.0)
    assert data.environment is not None
    assert data.environment.goal_task
    assert data.family == "pointmaze"


def test_entries_of_any_name_become_vectors(datasets: pathlib.Path) -> None:
    random = np.random.default_rng(1)
    make(
        "mine/keys-v0",
        [4, 4],
        observation=lambda rows: {"position": random.normal(size=(rows, 2)), "velocity": np.full((rows, 1), 3.0)},
    )
    data = minari_source.read_minari("mine/keys-v0", env="Pendulum-v1")
    assert data.observation_keys == ("position", "velocity")
    assert data.environment is not None
    assert data.environment.observation_keys == ("position", "velocity")
    np.testing.assert_array_equal(data.observations[:, 2], 3.0)


def test_whether_goals_repeat_is_decided_by_all_episodes(datasets: pathlib.Path) -> None:
    random = np.random.default_rng(1)
    calls = 0

    def observation(rows: int) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        state = random.normal(size=(rows, 3))
        position = state[:, :2] if calls % 2 else state[:, 1:]
        return {"observation": state, "achieved_goal": position, "desired_goal": np.zeros((rows, 2))}

    make("mine/goal-v0", [4, 4, 4], observation=observation)
    data = minari_source.read_minari("mine/goal-v0")
    assert data.observation_keys == ("achieved_goal", "observation", "desired_goal")
    assert data.observation_size == 7


def test_rewards_of_one_number_each_may_be_arrays(datasets: pathlib.Path) -> None:
    make("mine/flat-v0", [4, 3])
    make("mine/column-v0", [4, 3], column=True)
    flat, column = (minari_source.read_minari(f"mine/{name}-v0") for name in ("flat", "column"))
    assert column.rewards.shape == (7,)
    assert column.fingerprint == flat.fingerprint


def test_wrappers_of_the_recording_are_kept(datasets: pathlib.Path) -> None:
    import gymnasium

    make("mine/swing-v0", [4])
    spec = json.loads(gymnasium.spec("Pendulum-v1").to_json())
    recorded = [
        {
            "name": "R",
            "entry_point": "gymnasium.wrappers.transform_action:RescaleAction",
            "kwargs": {"min_action": 0.0},
        },
        {"name": "ClipAction", "entry_point": "evil.wrappers:ClipAction", "kwargs": None},
    ]
    own = {"env_spec": json.dumps(spec | {"additional_wrappers": recorded})}
    edit(datasets, "mine/swing-v0", lambda metadata: metadata | own)
    environment = minari_source.read_minari("mine/swing-v0").environment
    assert environment is not None
    assert environment.wrappers == (
        WrapperSpec("RescaleAction", {"min_action": 0.0}),
        WrapperSpec("evil.wrappers:ClipAction", None),
    )
    for wrong in ("RescaleAction", [1], [{"name": "ClipAction"}], [{"entry_point": "a:B", "kwargs": [1]}]):
        own["env_spec"] = json.dumps(spec | {"additional_wrappers": wrong})
        edit(datasets, "mine/swing-v0", lambda metadata: metadata | own)
        with pytest.raises(
            DatasetError, match="additional_wrappers of the metadata's env_spec are no Gymnasium spec's"
        ):
            minari_source.read_minari("mine/swing-v0")


def test_environment_for_evaluation_goes_before_the_one_of_collection(datasets: pathlib.Path) -> None:
    make(
        "mine/cart-v0",
        [4],
        env="MountainCarContinuous-v0",
        eval_env="Pendulum-v1",
        ref_min_score=1.0,
        ref_max_score=2.0,
    )
    data = minari_source.read_minari("mine/cart-v0")
    assert data.environment is not None
    assert (data.environment.id, data.environment.max_episode_steps) == ("Pendulum-v1", 200)
    assert data.reference is not None
    assert (data.reference.random, data.reference.expert) == (1.0, 2.0)


def test_values_are_validated(datasets: pathlib.Path) -> None:
    make("mine/nan-v0", [3], observation=lambda rows: np.full((rows, 4), np.nan))
    with pytest.raises(DatasetError, match="mine/nan-v0: observations, row 0, dimension 0: nan"):
        minari_source.read_minari("mine/nan-v0")
    assert minari_source.read_minari("mine/nan-v0", allow_invalid=True).size == 3


def test_images_and_discrete_actions_are_refused(datasets: pathlib.Path) -> None:
    make("mine/grid-v0", [3], observation=lambda rows: np.zeros((rows, 2, 2)))
    with pytest.raises(DatasetError, match="mine/grid-v0, episode 0: observations have shape"):
        minari_source.read_minari("mine/grid-v0")
    make("mine/push-v0", [3], action_space=spaces.MultiBinary(2))
    with pytest.raises(DatasetError, match=r"mine/push-v0: action space .* is not a box"):
        minari_source.read_minari("mine/push-v0")


def test_absent_dataset_names_place_and_closest(datasets: pathlib.Path) -> None:
    make("mine/walk-v0", [3])
    with pytest.raises(DatasetError) as caught:
        minari_source.read_minari("mine/walk-v1")
    message = str(caught.value)
    assert "not at" in message
    assert str(datasets) in message
    assert "data download mine/walk-v1" in message
    assert message.endswith("close to it here: mine/walk-v0")
    assert minari_files.local_ids() == ["mine/walk-v0"]


def test_bad_id_and_broken_directory(datasets: pathlib.Path) -> None:
    (datasets / "mine" / "empty-v0" / "data").mkdir(parents=True)
    with pytest.raises(DatasetError, match="'mine/empty-v0' cannot be read: No data found"):
        minari_source.read_minari("mine/empty-v0")


def edit(root: pathlib.Path, dataset_id: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrites the metadata of a dataset."""
    path = root / dataset_id / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps(change(metadata)))


@pytest.mark.parametrize("space", ["action_space", "observation_space"])
def test_no_environment_is_made_to_find_a_missing_space(datasets: pathlib.Path, space: str) -> None:
    """Minari would run `os.system(command="touch ...")`."""
    make("made/trap-v0", [5])
    trace = datasets / "trace"
    spec = {"id": "Trap-v0", "entry_point": "os:system", "kwargs": {"command": f"touch {trace}"}}

    def spoil(metadata: dict[str, Any]) -> dict[str, Any]:
        del metadata[space]
        return metadata | {"env_spec": json.dumps(spec)}

    edit(datasets, "made/trap-v0", spoil)
    with pytest.raises(DatasetError, match=rf"has no {space}; .*nothing that a dataset names is run to find them"):
        minari_source.read_minari("made/trap-v0")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: [metadata], r"metadata\.json is not a JSON object"),
        (lambda metadata: metadata | {"env_spec": "{"}, r"env_spec of the metadata is not JSON"),
        (lambda metadata: metadata | {"env_spec": 7}, r"env_spec of the metadata is not JSON"),
        (lambda metadata: metadata | {"eval_env_spec": "[1]"}, r"eval_env_spec of the metadata has no id"),
        (lambda metadata: metadata | {"action_space": 3}, r"has no action_space"),
    ],
)
def test_metadata_that_say_something_else_are_refused(
    datasets: pathlib.Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    make("made/odd-v0", [5])
    edit(datasets, "made/odd-v0", change)
    with pytest.raises(DatasetError, match=message):
        minari_source.read_minari("made/odd-v0")


def test_a_minari_file_that_refers_to_others_is_refused(datasets: pathlib.Path) -> None:
    make("made/linked-v0", [5])
    make("made/other-v0", [5])
    path, other = (datasets / name / "data" / "main_data.hdf5" for name in ("made/linked-v0", "made/other-v0"))
    with h5py.File(path, "a") as file:
        del file["episode_0/rewards"]
        file["episode_0/rewards"] = h5py.ExternalLink(str(other), "/episode_0/rewards")
    with pytest.raises(DatasetError, match=r"/episode_0/rewards is a link to .*main_data\.hdf5:/episode_0/rewards"):
        minari_source.read_minari("made/linked-v0")


def test_where_a_space_has_no_bounds_the_data_have(datasets: pathlib.Path) -> None:
    """The first dimension is without bounds, the second one is a constant of the space."""
    low, high = np.asarray([-np.inf, 0.5], np.float32), np.asarray([np.inf, 0.5], np.float32)
    make("made/free-v0", [20], action_space=spaces.Box(low, high, dtype=np.float32))
    dataset = minari_source.read_minari("made/free-v0", allow_invalid=True)
    assert dataset.action_low.tolist() == [pytest.approx(dataset.actions[:, 0].min()), 0.5]
    assert dataset.action_high.tolist() == [pytest.approx(dataset.actions[:, 0].max()), 0.5]
    assert np.isfinite(measure_units(dataset).normalize_actions(dataset.actions)).all()


def test_discrete_actions_are_named(datasets: pathlib.Path) -> None:
    make("made/whole-v0", [5], action_space=spaces.Box(-1, 1, (2,), np.int64))
    with pytest.raises(DatasetError, match=r"action space .* is discrete; only continuous actions can be trained on"):
        minari_source.read_minari("made/whole-v0")


def test_an_id_may_lack_a_namespace(datasets: pathlib.Path) -> None:
    make("walk-v0", [5])
    assert loading.read_dataset("walk-v0").size == 5
    with pytest.raises(DatasetError, match="unknown dataset 'wolk-v0'"):
        loading.read_dataset("wolk-v0")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("observations", np.full((6, 4), b"1.0"), r"episode 0: observations holds \|S3; expected real numbers"),
        ("observations", np.full((6, 4), 1j), "episode 0: observations holds complex128; expected real numbers"),
        ("rewards", np.full(5, b"1"), r"episode 0: rewards holds \|S1; expected real numbers"),
        ("rewards", np.full(5, 1j), "episode 0: rewards holds complex128; expected real numbers"),
        ("actions", np.full((5, 2), 0.5j), "episode 0: actions holds complex128; expected real numbers"),
        ("terminations", np.full(5, 0.5), "episode 0: terminals, row 0: 0.5; expected 0 or 1"),
    ],
)
def test_other_kinds_of_values_are_refused(datasets: pathlib.Path, name: str, values: np.ndarray, message: str) -> None:
    make("made/odd-v0", [5])
    with h5py.File(datasets / "made/odd-v0" / "data" / "main_data.hdf5", "a") as file:
        del file[f"episode_0/{name}"]
        file[f"episode_0/{name}"] = values
    with pytest.raises(DatasetError, match=message):
        minari_source.read_minari("made/odd-v0")


@pytest.mark.parametrize("data_format", ["arrow", "parquet"])
def test_every_format_of_minari_gives_the_same(datasets: pathlib.Path, data_format: str) -> None:
    pytest.importorskip("pyarrow", reason="extra `arrow` is not installed")
    make("made/one-v0", [3, 5, 2], terminated=(1,))
    make("made/other-v0", [3, 5, 2], terminated=(1,), data_format=data_format)
    one, other = (minari_source.read_minari(name) for name in ("made/one-v0", "made/other-v0"))
    assert other.fingerprint == one.fingerprint
    np.testing.assert_array_equal(other.episode_ends, one.episode_ends)


def test_episodes_of_different_widths_are_refused(datasets: pathlib.Path) -> None:
    make("made/odd-v0", [5, 5])
    with h5py.File(datasets / "made/odd-v0" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_1/observations"]
        file["episode_1/observations"] = np.zeros((6, 7))
    with pytest.raises(DatasetError, match=r"episode 1: observations have width 7 and actions 2; expected 4, as in"):
        minari_source.read_minari("made/odd-v0")


def test_actions_must_have_the_width_of_their_space(datasets: pathlib.Path) -> None:
    make("made/odd-v0", [5], action_space=spaces.Box(-1, 1, (3,), np.float32))
    with pytest.raises(
        DatasetError, match=r"observations have width 4 and actions 2; expected 4, .* and 3, as the act"
    ):
        minari_source.read_minari("made/odd-v0")


@pytest.mark.parametrize("name", ["terminations", "truncations"])
def test_an_episode_that_goes_on_after_its_end_is_refused(datasets: pathlib.Path, name: str) -> None:
    make("made/odd-v0", [5, 5])
    with h5py.File(datasets / "made/odd-v0" / "data" / "main_data.hdf5", "a") as file:
        file[f"episode_1/{name}"][2] = True
    with pytest.raises(DatasetError, match=r"mark a step of episode 1 that is not its last one \(1 rows in all\)"):
        minari_source.read_minari("made/odd-v0")
    assert minari_source.read_minari("made/odd-v0", allow_invalid=True).warnings


def test_steps_that_minari_does_not_give_are_missed(datasets: pathlib.Path) -> None:
    make("made/odd-v0", [5, 5])
    edit(datasets, "made/odd-v0", lambda metadata: metadata | {"total_steps": 12})
    with pytest.raises(DatasetError, match="the metadata say 12 steps, the episodes have 10; --allow_invalid_data"):
        minari_source.read_minari("made/odd-v0")


@pytest.mark.parametrize("scores", [("a", 1.0), (1.0, 1.0), (0.0, float("inf")), (10**400, 1.0), ([1], 2.0)])
def test_reference_returns_that_are_none_are_refused(datasets: pathlib.Path, scores: tuple[Any, Any]) -> None:
    make("made/odd-v0", [5])
    low, high = scores
    edit(datasets, "made/odd-v0", lambda metadata: metadata | {"ref_min_score": low, "ref_max_score": high})
    with pytest.raises(DatasetError, match="ref_min_score and ref_max_score of the metadata"):
        minari_source.read_minari("made/odd-v0")


def test_terminations_that_are_time_limits_are_told_of(datasets: pathlib.Path) -> None:
    make("made/merged-v0", [5, 5, 5], terminated=(0, 1, 2))
    (warning,) = minari_source.read_minari("made/merged-v0").warnings
    assert warning.startswith("made/merged-v0: 3 of the 3 episodes that end with terminals = 1 have 5 steps, as where")
    make("made/mixed-v0", [5, 5, 3, 4], terminated=(0, 1, 2), unfinished=(3,))
    assert minari_source.read_minari("made/mixed-v0").warnings == ()
    (warning,) = minari_source.read_minari("made/mixed-v0", env="Mine-v0", env_time_limit=5).warnings
    assert "2 of the 3 episodes that end with terminals = 1 have 5 steps, the time limit" in warning
    (warning,) = minari_source.read_minari("made/mixed-v0", env="Pendulum-v1").warnings
    assert "Pendulum never terminates, but 3 episodes" in warning


def test_one_broken_dataset_of_the_store_does_not_hide_the_others(datasets: pathlib.Path) -> None:
    make("made/sound-v0", [5])
    make("made/broken-v0", [5])
    edit(datasets, "made/broken-v0", lambda metadata: [])
    with pytest.raises(DatasetError, match=r"close to it here: made/sound-v0"):
        minari_source.read_minari("made/sound-v1")
    assert minari_source.read_minari("made/sound-v0").size == 5
