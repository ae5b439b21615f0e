"""The D4RL reader against a plain loop, and on real files."""

import os
import pathlib
import subprocess
import sys
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl_srpo.data import d4rl, d4rl_files
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import DatasetError
from tests.data.test_recording import sound, write_with_resets


def loop_transitions(fields: dict[str, Any], max_episode_steps: int | None) -> tuple[list[int], list[int]]:
    """D4RL's rules, one row at a time: the kept rows, and for each the number of the episode it belongs to."""
    kept: list[int] = []
    episodes: list[int] = []
    episode, counter = 0, 0
    for i in range(len(fields["rewards"]) - 1):
        if fields["timeouts"] is not None:
            final = bool(fields["timeouts"][i])
        else:
            final = max_episode_steps is not None and counter == max_episode_steps - 1
        if final:
            counter = 0
            episode += 1
            continue
        if fields["terminals"][i]:
            counter = 0
        kept.append(i)
        episodes.append(episode)
        episode += bool(fields["terminals"][i])
        counter += 1
    return kept, episodes


def write(path: pathlib.Path, fields: dict[str, Any], **attributes: Any) -> pathlib.Path:
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            if value is not None:
                file[name] = value
        file.attrs.update(attributes)
    return path


def random_fields(rows: int, seed: int, end_rate: float, with_timeouts: bool, with_next: bool) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    observations = random.normal(size=(rows, 3)).astype(np.float32)
    terminals = random.random(rows) < end_rate
    timeouts = random.random(rows) < end_rate if with_timeouts else None
    following = None
    if with_next:
        following = np.concatenate([observations[1:], observations[:1]])
        following[terminals] += 1.0
        if timeouts is not None:
            following[timeouts] += 1.0
    return {
        "observations": observations,
        "actions": random.uniform(-1, 1, (rows, 2)).astype(np.float32),
        "rewards": random.normal(size=rows).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
        "next_observations": following,
    }


@settings(deadline=None, max_examples=200)
@given(
    rows=st.integers(2, 60),
    seed=st.integers(0, 2**32 - 1),
    end_rate=st.sampled_from([0.0, 0.05, 0.3, 0.8]),
    with_timeouts=st.booleans(),
    with_next=st.booleans(),
    limit=st.sampled_from([None, 1, 2, 3, 7, 100]),
)
def test_qlearning_semantics_equal_a_loop(
    tmp_path_factory: pytest.TempPathFactory,
    rows: int,
    seed: int,
    end_rate: float,
    with_timeouts: bool,
    with_next: bool,
    limit: int | None,
) -> None:
    fields = random_fields(rows, seed, end_rate, with_timeouts, with_next)
    path = write(tmp_path_factory.mktemp("d4rl") / "x.hdf5", fields)
    rows_kept, episodes = loop_transitions(fields, limit)
    if not rows_kept:
        with pytest.raises(DatasetError, match="no transition is left"):
            d4rl_files.read_hdf5(path, allow_invalid=True, max_episode_steps=limit)
        return
    data = d4rl_files.read_hdf5(path, allow_invalid=True, max_episode_steps=limit)
    kept = np.array(rows_kept)
    np.testing.assert_array_equal(data.observations, fields["observations"][kept])
    np.testing.assert_array_equal(data.actions, fields["actions"][kept])
    np.testing.assert_array_equal(data.rewards, fields["rewards"][kept])
    np.testing.assert_array_equal(data.terminals, fields["terminals"][kept])
    following = fields["observations"][kept + 1] if not with_next else fields["next_observations"][kept]
    np.testing.assert_array_equal(data.next_observations, following)
    ends = [i == len(kept) - 1 or episodes[i + 1] != episodes[i] for i in range(len(kept))]
    np.testing.assert_array_equal(data.episode_ends, ends)
    assert data.terminals.dtype == bool
    assert {array.dtype for array in (data.observations, data.actions, data.rewards, data.next_observations)} == {
        np.dtype(np.float32)
    }


def test_row_that_is_terminal_and_timed_out_is_dropped() -> None:
    rows = d4rl_files.qlearning_rows(np.array([0, 1, 0, 1, 0], bool), np.array([0, 1, 0, 0, 0], bool), None)
    np.testing.assert_array_equal(rows.kept, [0, 2, 3])
    np.testing.assert_array_equal(rows.ends, [0, 1, 0, 1, 0])


def test_step_counter_starts_at_one_after_a_termination() -> None:
    terminals = np.zeros(12, bool)
    terminals[2] = True
    rows = d4rl_files.qlearning_rows(terminals, None, 4)
    # Rows 3, 4, 5 count 1, 2, 3 and the limit of 4 is met at row 5; from there on every fourth row.
    np.testing.assert_array_equal(np.flatnonzero(rows.final), [5, 9])


def test_episode_statistics_cover_dropped_steps_and_leave_out_the_unfinished_episode(tmp_path: pathlib.Path) -> None:
    fields = random_fields(10, 0, 0.0, True, False)
    fields["rewards"] = np.arange(10, dtype=np.float32)
    fields["terminals"][2] = True
    fields["timeouts"][6] = True
    data = d4rl_files.read_hdf5(write(tmp_path / "x.hdf5", fields), allow_invalid=True)
    np.testing.assert_array_equal(data.episode_returns, [0 + 1 + 2, 3 + 4 + 5 + 6])
    np.testing.assert_array_equal(data.episode_lengths, [3, 4])
    assert data.timeouts == 1
    np.testing.assert_array_equal(np.flatnonzero(data.episode_ends), [2, 5, 7])


def test_name_of_a_file_called_like_d4rls(tmp_path: pathlib.Path) -> None:
    assert d4rl.name_of_file("/data/hopper_medium-v2.hdf5") == "hopper-medium-v2"
    assert d4rl.name_of_file("halfcheetah_medium-regen.hdf5") is None
    fields = random_fields(20, 1, 0.0, True, False)
    data = d4rl_files.read_hdf5(write(tmp_path / "hopper_medium-regen.hdf5", fields), allow_invalid=True)
    assert (data.name, data.family) == ("hopper_medium-regen", "locomotion")
    assert data.environment == EnvironmentSpec("Hopper-v4")
    assert data.reference == d4rl.reference("hopper-medium-v2")


def test_widths_must_fit_the_name(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "hopper_medium-regen.hdf5", random_fields(20, 1, 0.0, True, True))
    with pytest.raises(DatasetError, match=r"widths 3 and 2, but hopper has 11 and 3; .*--env"):
        d4rl_files.read_hdf5(path)
    assert d4rl_files.read_hdf5(path, env="Reacher-v4").environment == EnvironmentSpec("Reacher-v4")


def test_file_attributes_and_override(tmp_path: pathlib.Path) -> None:
    fields = random_fields(20, 2, 0.0, True, True)
    path = write(tmp_path / "mine.hdf5", fields, env_id="Hopper-v4", action_low=[-2.0, -1.0], action_high=2.0)
    data = d4rl_files.read_hdf5(path)
    assert (data.environment, data.family) == (EnvironmentSpec("Hopper-v4"), "locomotion")
    np.testing.assert_array_equal(data.action_low, [-2.0, -1.0])
    np.testing.assert_array_equal(data.action_high, [2.0, 2.0])
    other = d4rl_files.read_hdf5(path, env="Pendulum-v1")
    assert (other.environment, other.family, other.reference) == (EnvironmentSpec("Pendulum-v1"), "other", None)


def test_bounds_of_unknown_environments_follow_the_data(tmp_path: pathlib.Path) -> None:
    fields = random_fields(20, 2, 0.0, True, True)
    fields["actions"][3, 1] = 7.0
    data = d4rl_files.read_hdf5(write(tmp_path / "mine.hdf5", fields))
    np.testing.assert_array_equal(data.action_high, [1.0, 7.0])


def test_fingerprint_follows_the_transitions(tmp_path: pathlib.Path) -> None:
    fields = random_fields(20, 3, 0.0, True, True)
    first = d4rl_files.read_hdf5(write(tmp_path / "a.hdf5", fields)).fingerprint
    assert d4rl_files.read_hdf5(write(tmp_path / "b.hdf5", fields)).fingerprint == first
    fields["rewards"][4] += 1.0
    assert d4rl_files.read_hdf5(write(tmp_path / "c.hdf5", fields)).fingerprint != first
    assert len(first) == 64


def walks(lengths: list[int], **fields: Any) -> dict[str, Any]:
    """Episodes of these lengths that all terminate, without time-outs."""
    rows = sum(lengths)
    content = random_fields(rows, 4, 0.0, False, False)
    content["terminals"][np.cumsum(lengths) - 1] = True
    return content | fields


def test_the_time_limit_of_the_environment_ends_episodes_where_the_file_marks_none(tmp_path: pathlib.Path) -> None:
    """Counted from each start: an episode of 25 steps has its last one at row 37, not earlier."""
    path = write(tmp_path / "mine.hdf5", walks([13, 25, 40]))
    data = d4rl_files.read_hdf5(path, env="Mine-v0", env_time_limit=30, allow_invalid=True)
    assert data.episode_lengths.tolist() == [13, 25, 30, 10]
    assert (data.timeouts, int(data.terminals.sum())) == (1, 2)
    assert data.warnings == (f"{path}: no `timeouts`; the time limit of Mine-v0, 30 steps, is taken",)
    marked = write(tmp_path / "marked.hdf5", walks([13, 25, 40], timeouts=np.zeros(78, bool)))
    data = d4rl_files.read_hdf5(marked, env="Mine-v0", env_time_limit=30, allow_invalid=True)
    assert (data.episode_lengths.tolist(), data.warnings) == ([13, 25, 40], ())


def test_terminations_that_are_time_limits_are_told_of(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "mine.hdf5", walks([20] * 4))
    (warning,) = d4rl_files.read_hdf5(path, allow_invalid=True).warnings
    assert warning.startswith(f"{path}: 4 of the 4 episodes that end with terminals = 1 have 20 steps, as where")
    path = write(tmp_path / "mine.hdf5", walks([20, 30], timeouts=np.zeros(50, bool)))
    assert d4rl_files.read_hdf5(path, allow_invalid=True).warnings == ()
    (warning,) = d4rl_files.read_hdf5(path, env="Reacher-v4", allow_invalid=True).warnings
    assert "Reacher never terminates, but 2 episodes end with terminals = 1" in warning


@pytest.mark.parametrize("given", [True, False])
def test_rows_of_resets_are_told_of_and_left_out(tmp_path: pathlib.Path, given: bool) -> None:
    path = write_with_resets(tmp_path / "mine.hdf5", given)
    noted = d4rl_files.read_hdf5(path)
    assert "5 rows, each after an episode's end, are no transitions" in noted.warnings[0]
    left = d4rl_files.read_hdf5(path, drop_reset_rows=True)
    assert left.warnings[0] == f"{path}: 5 reset rows are left out"
    assert left.size == noted.size - 5
    np.testing.assert_array_equal(left.observations, sound().observations[:-1])
    np.testing.assert_array_equal(left.episode_lengths, [20] * 6)


def test_without_resets_none_is_left_out(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path / "mine.hdf5", random_fields(40, 5, 0.2, True, True))
    noted, left = (d4rl_files.read_hdf5(path, drop_reset_rows=drop) for drop in (False, True))
    assert left.fingerprint == noted.fingerprint
    assert left.warnings == (f"{path}: no row can be a reset; none is left out",)


@pytest.mark.parametrize("name", [b"na\xffme.hdf5", b"na\nme.hdf5"])
def test_a_path_that_cannot_be_printed_is_refused(tmp_path: pathlib.Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(write(tmp_path / "mine.hdf5", random_fields(40, 5, 0.2, True, True)).read_bytes())
    with pytest.raises(DatasetError, match=r"the path of a dataset is .*; expected printable text in UTF-8"):
        d4rl_files.read_hdf5(path)


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all"])
def test_unreadable_file(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / "x.hdf5"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="not a readable HDF5 file"):
        d4rl_files.read_hdf5(path)


@pytest.mark.parametrize(
    ("stem", "transitions", "episodes", "terminals", "timeouts", "score"),
    [
        ("hopper_medium-regen", 100_049, 253, 236, 16, 45.1),
        ("hopper_mixed-regen", 100_765, 199, 157, 42, None),
        ("halfcheetah_medium-regen", 99_900, 100, 0, 100, 37.4),
        ("halfcheetah_mixed-regen", 101_898, 102, 0, 102, None),
    ],
)
def test_real_files(
    stem: str,
    transitions: int,
    episodes: int,
    terminals: int,
    timeouts: int,
    score: float | None,
    test_data: pathlib.Path,
) -> None:
    data = d4rl_files.read_hdf5(test_data / f"{stem}.hdf5")
    assert (data.size, len(data.episode_returns), data.timeouts) == (transitions, episodes, timeouts)
    assert int(data.terminals.sum()) == terminals
    assert data.family == "locomotion"
    assert data.reference is not None
    if score is not None:
        assert data.reference.normalize(data.episode_returns).mean() == pytest.approx(score, abs=0.05)
    # Within an episode, s' is the next s.
    inside = ~data.episode_ends[:-1]
    np.testing.assert_array_equal(data.next_observations[:-1][inside], data.observations[1:][inside])


def test_hdf5_is_read_without_gymnasium_mujoco_and_minari(tmp_path: pathlib.Path) -> None:
    write(tmp_path / "mine.hdf5", random_fields(20, 3, 0.0, True, True), env_id="Hopper-v4")
    program = (
        "import sys\n"
        "for name in ('gymnasium', 'gymnasium_robotics', 'mujoco', 'minari', 'gym', 'd4rl'): sys.modules[name] = None\n"
        "from jaxrl_srpo.data import read_dataset, transform_rewards\n"
        "data = read_dataset(sys.argv[1])\n"
        "print(data.size, data.environment.id)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mine.hdf5")],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["19", "Hopper-v4"]
