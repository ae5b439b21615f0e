"""Which names are made on this machine, and which are downloaded."""

import pytest

from jaxrl_srpo.data import d4rl, names
from jaxrl_srpo.envs import pointmaze
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.errors import DatasetError


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("pointmaze/umaze", True),
        ("regenerated/hopper/medium-v0", True),
        ("hopper-medium-v2", False),
        ("D4RL/door/human-v2", False),
        ("pointmaze/umaze-mine-v0", False),
    ],
)
def test_made_here(name: str, made: bool) -> None:
    assert names.is_made_here(name) == made


def test_there_is_one_embedded_dataset_per_maze_and_none_is_called_like_d4rls() -> None:
    assert set(names.EMBEDDED) == {f"pointmaze/{maze}" for maze in pointmaze.MAZES}
    assert not set(names.EMBEDDED) & set(d4rl.known_names())


@pytest.mark.parametrize(
    "name",
    [
        "cube-single-play-singletask-v0",
        "cube-quadruple-noisy-v0",
        "scene-play-singletask-task3-v0",
        "puzzle-4x6-noisy-v0",
        "antmaze-giant-navigate-singletask-task1-v0",
        "pointmaze-teleport-stitch-v0",
        "humanoidmaze-large-explore-v0",
        "antsoccer-arena-navigate-v0",
        "visual-cube-single-play-v0",
        "powderworld-easy-play-v0",
        "antmaze-medium-navigate-oraclerep-v0",
    ],
)
def test_ogbench_is_known_by_its_names(name: str) -> None:
    assert names.OGBENCH.fullmatch(name)
    with pytest.raises(DatasetError, match=f"^{name}: is a dataset of OGBench, which is not read by name yet"):
        load_dataset(name)


def test_ogbench_has_none_of_d4rls_names() -> None:
    for name in (*d4rl.known_names(), *names.EMBEDDED, "antmaze-large-play-v3", "hopper-medium-v0"):
        assert not names.OGBENCH.fullmatch(name)
