"""Which names are made on this machine, and which are downloaded."""

import pytest

from jaxrl_srpo.data import d4rl, names
from jaxrl_srpo.envs import pointmaze


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
