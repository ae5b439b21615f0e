"""Data of others that are called like D4RL's are told apart."""

import pytest

from jaxrl_srpo.data import d4rl
from jaxrl_srpo.data.dataset import Dataset
from jaxrl_srpo.data.origins import origin
from tests.data.swing import swing


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("D4RL/pointmaze/umaze-v2", "Minari's re-collected PointMaze, not D4RL's maze2d"),
        ("D4RL/antmaze/large-play-v1", "not D4RL's antmaze"),
        ("D4RL/kitchen/mixed-v2", "another environment than D4RL's kitchen"),
        ("D4RL/minigrid/fourrooms-v0", "MiniGrid"),
        ("D4RL/door/human-v2", "Minari's conversion of D4RL's Adroit data"),
        ("mujoco/hopper/medium-v0", "v5 environments, not D4RL's"),
        ("regenerated/hopper/medium-v0", "made by D4RL's recipe with SAC of this package"),
        ("halfcheetah_medium-regen", "a regenerated look-alike"),
        ("hopper-medium-regen-2", "a regenerated look-alike"),
    ],
)
def test_data_of_others_are_named(name: str, words: str) -> None:
    assert words in origin(name)


@pytest.mark.parametrize("name", ["pointmaze/umaze", "my-data", "mine/hopper-v0", "hopper-regenerate", "D4RL"])
def test_what_nobody_takes_for_d4rls_needs_no_words(name: str) -> None:
    assert origin(name, "/data/x.hdf5") == ""


def test_d4rls_own_names_belong_to_its_files() -> None:
    for name in d4rl.known_names():
        assert origin(name) == origin(name, f"/cache/{d4rl.entry(name).path}") == ""
    held = Dataset.from_arrays(**swing() | {"name": "hopper-medium-v2"}, allow_invalid=True)
    assert "arrays of a Python program" in origin(held.name, held.source)
    assert "not known to hold D4RL's data" in origin("hopper-medium-v2", "/data/hopper-medium-v2.npz")
