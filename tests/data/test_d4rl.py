"""D4RL's table of names, and the environments they are evaluated in."""

import gymnasium
import numpy as np
import pytest

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.data.dataset import ReferenceReturns
from jaxrl_srpo.errors import DatasetError


def test_table_has_155_names_with_references() -> None:
    assert len(d4rl.known_names()) == 155
    item = d4rl.entry("hopper-medium-v2")
    assert item.path == "gym_mujoco_v2/hopper_medium-v2.hdf5"
    assert item.urls[-1] == "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/hopper_medium-v2.hdf5"
    assert len(item.urls) == 3
    assert all(url.startswith("https://") for url in item.urls[:-1])
    assert item.urls[1].endswith("/main/hopper_medium-v2.hdf5")
    scores = d4rl.reference("hopper-medium-v2")
    assert scores == ReferenceReturns(-20.272305, 3234.3)
    assert d4rl.reference("halfcheetah-medium-replay-v2") == ReferenceReturns(-280.178953, 12135.0)
    assert d4rl.reference("antmaze-umaze-v2") == ReferenceReturns(0.0, 1.0)
    assert d4rl.reference("maze2d-eval-umaze-v1") is None
    with pytest.raises(DatasetError, match="no dataset 'hopper-v9'"):
        d4rl.reference("hopper-v9")


@pytest.mark.parametrize(
    ("name", "family", "environment"),
    [
        ("hopper-medium-v2", "locomotion", "Hopper-v4"),
        ("halfcheetah_mixed-regen", "locomotion", "HalfCheetah-v4"),
        ("walker2d-expert-v0", "locomotion", "Walker2d-v4"),
        ("ant-medium-v2", "locomotion", "Ant-v4"),
        ("antmaze-umaze-v2", "antmaze", "jaxrl_srpo/antmaze-umaze-v2"),
        ("maze2d-large-v1", "pointmaze", "jaxrl_srpo/maze2d-large-v1"),
        ("pointmaze/umaze", "pointmaze", None),
        ("pen-human-v1", "adroit", "AdroitHandPen-v1"),
        ("kitchen-mixed-v0", "kitchen", None),
        ("bullet-hopper-expert-v0", "other", None),
        ("something", "other", None),
    ],
)
def test_family_and_environment_of_names(name: str, family: str, environment: str | None) -> None:
    assert d4rl.family(name) == family
    spec = d4rl.environment(name)
    assert (spec and spec.id) == environment


def test_no_two_files_have_one_name() -> None:
    """Copies without folders have but one file of a name."""
    paths = {d4rl.entry(name).path for name in d4rl.known_names()}
    assert len({path.rsplit("/", 1)[-1] for path in paths}) == len(paths)


def test_every_name_has_a_time_limit() -> None:
    assert [name for name in d4rl.known_names() if d4rl.time_limit(name) is None] == []
    assert d4rl.time_limit("antmaze-umaze-v0") == 700
    assert d4rl.time_limit("maze2d-eval-large-dense-v1") == 800


def test_environment_ids() -> None:
    assert d4rl.environment_family("Hopper-v5") == "locomotion"
    assert d4rl.environment_family("AntMaze_UMaze-v5") == "antmaze"
    assert d4rl.environment_family("jaxrl_srpo/antmaze-umaze-v2") == "antmaze"
    assert d4rl.environment_family("jaxrl_srpo/maze2d-open-v0") == "pointmaze"
    assert d4rl.reference_for("mine", "Hopper-v4") == d4rl.reference("hopper-medium-v2")
    assert d4rl.reference_for("mine", "AdroitHandDoor-v1") == d4rl.reference("door-human-v1")
    assert d4rl.reference_for("mine", "PointMaze_UMaze-v3") is None
    assert d4rl.reference_for("mine", "jaxrl_srpo/antmaze-large-v2") == ReferenceReturns(0.0, 1.0)
    assert d4rl.reference_for("mine", "jaxrl_srpo/maze2d-umaze-v1") == ReferenceReturns(23.85, 161.86)
    assert d4rl.reference_for("mine", "jaxrl_srpo/maze2d-eval-umaze-v1") is None
    assert d4rl.reference_for("mine", None) is None
    assert d4rl.reference_for("kitchen-complete-v0", None) == d4rl.reference("kitchen-complete-v0")


@pytest.mark.parametrize("name", ["mine", "hopper-medium-v2", "hopper-random-v0"])
def test_references_of_another_version_are_marked(name: str) -> None:
    own, other = d4rl.reference_for(name, "Hopper-v4"), d4rl.reference_for(name, "Hopper-v5")
    assert own is not None
    assert other is not None
    assert (own.metric, other.metric) == ("normalized_score", "normalized_score_other_version")
    assert (own.random, own.expert) == (other.random, other.expert)
    assert d4rl.environment_spec("PointMaze_UMaze-v3").goal_task
    assert not d4rl.environment_spec("Hopper-v4").goal_task


def test_a_task_of_ogbench_is_a_goal_task_with_ogbenchs_time_limit_whoever_names_it() -> None:
    own = d4rl.environment_spec("cube-single-singletask-task3-v0")
    assert (own.goal_task, own.max_episode_steps) == (True, 200)
    assert d4rl.environment_spec("pointmaze-giant-singletask-v0").max_episode_steps == 1000
    assert d4rl.environment_spec("cube-single-singletask-task3-v0", max_episode_steps=50).max_episode_steps == 50


@pytest.mark.filterwarnings("ignore:.*Ant-v4 is out of date:DeprecationWarning")
def test_ant_of_d4rl_has_its_111_numbers_with_contact_forces_of_zero() -> None:
    pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
    spec = d4rl.environment("ant-medium-v2")
    assert spec is not None
    env = gymnasium.make(spec.id, disable_env_checker=True, **spec.kwargs).unwrapped
    env.reset(seed=0)
    observation, reward, _, _, _ = env.step(env.action_space.sample())
    assert observation.shape == (111,)
    assert not observation[27:].any()
    assert np.isfinite(float(reward))
    env.close()
