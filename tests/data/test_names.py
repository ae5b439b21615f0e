"""Which names are made on this machine, and which are downloaded."""

import pytest

from jaxrl_srpo.data import d4rl, names
from jaxrl_srpo.envs import pointmaze
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.errors import DatasetError, UserError


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
    here = "-v0.npz is not in |: has no rewards; name a task|: is no dataset of OGBench that is read here"
    with pytest.raises(DatasetError, match=f"^{name.split('-')[0]}[^:]*({here})"):
        load_dataset(name)


@pytest.mark.parametrize(
    ("given", "expanded"),
    [
        (["hopper-medium-v2"], ("hopper-medium-v2",)),
        (["a{1:4}b", "c"], ("a1b", "a2b", "a3b", "c")),
        (["{0:1}"], ("0",)),
        (["a{1:x}b", "a{1}", "a{:}"], ("a{1:x}b", "a{1}", "a{:}")),
    ],
    ids=["none", "in-a-name", "alone", "no-ranges"],
)
def test_ranges_in_names_are_counted_as_those_of_seeds(given: list[str], expanded: tuple[str, ...]) -> None:
    assert names.expand_ranges(given) == expanded


@pytest.mark.parametrize("given", ["a{2:2}", "a{3:1}", "a{0:9999999999}"])
def test_empty_and_endless_ranges_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=r"^--datasets=a\{\d:\d+\}: \{\d:\d+\} is no range; \{1:6\} is 1 to 5$"):
        names.expand_ranges([given])


def test_ogbench_has_none_of_d4rls_names() -> None:
    for name in (*d4rl.known_names(), *names.EMBEDDED, "antmaze-large-play-v3", "hopper-medium-v0"):
        assert not names.OGBENCH.fullmatch(name)


@pytest.mark.parametrize(("text", "seeds"), [("0:3", (0, 1, 2)), ("2:3", (2,)), ("7", (7,)), ("5,0", (5, 0))])
def test_seeds(text: str, seeds: tuple[int, ...]) -> None:
    assert names.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1:", "3:3", "-1", "0:4:2", str(2**31), "1.5"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--seeds={text}: give a range such as 0:4 or a list such as 0,1,5"):
        names.parse_seeds(text)


def test_more_seeds_than_a_sweep_can_have_are_not_listed() -> None:
    with pytest.raises(UserError, match="--seeds=0:99999999999: are 99999999999 seeds; at most 100000"):
        names.parse_seeds("0:99999999999")
