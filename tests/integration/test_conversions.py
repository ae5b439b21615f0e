"""The conversions of docs/data.md and the README, on objects with the fields that other libraries' buffers have.

Fields and their meaning are those of stable_baselines3/common/buffers.py and off_policy_algorithm.py (2.9), of
cleanrl_utils/buffers.py and td3_continuous_action.py (commit 11f70c5), and of d3rlpy/dataset/components.py (2.8).
"""

import dataclasses
import functools
import pathlib
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest

import jaxrl_srpo
from tests import synthetic
from tests.data.swing import swing

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)


def blocks(file: str, word: str) -> str:
    """The Python block of a document that has a word."""
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / file).read_text(), re.M | re.S)
    (block,) = [one for one in found if word in one]
    return str(block)


def conversion(name: str) -> Callable[..., jaxrl_srpo.Dataset]:
    content: dict[str, Any] = {}
    exec(blocks("docs/data.md", f"def {name}"), content)
    made: Callable[..., jaxrl_srpo.Dataset] = content[name]
    return made


class Step(NamedTuple):
    """What one environment gave at one step; `following` is before any reset."""

    observation: np.ndarray
    action: np.ndarray
    reward: float
    following: np.ndarray
    terminated: bool
    truncated: bool


def walk(seed: int, limit: int = 7) -> Iterator[Step]:
    """A walk that terminates now and then, and else at its time limit."""
    random = np.random.default_rng(seed)
    while True:
        observation = random.normal(size=3).astype(np.float32)
        for step in range(1, limit + 1):
            action = random.uniform(LOW, HIGH).astype(np.float32)
            following = (observation + random.normal(0.0, 0.2, 3)).astype(np.float32)
            terminated = bool(random.random() < 0.1)
            yield Step(observation, action, float(random.normal()), following, terminated, step == limit)
            observation = following
            if terminated:
                break


@dataclasses.dataclass
class Ring:
    """The arrays of a `ReplayBuffer` of Stable-Baselines3 or CleanRL, [rows, environments, ...]."""

    buffer_size: int
    n_envs: int

    def __post_init__(self) -> None:
        shape = (self.buffer_size, self.n_envs)
        self.observations, self.next_observations = (np.zeros((*shape, 3), np.float32) for _ in range(2))
        self.actions = np.zeros((*shape, 2), np.float32)
        self.rewards, self.dones, self.timeouts = (np.zeros(shape, np.float32) for _ in range(3))
        self.pos, self.full = 0, False
        self.action_space = types.SimpleNamespace(low=LOW, high=HIGH)

    def add(self, *rows: Any) -> None:
        """Puts rows of all environments in the place of the oldest ones."""
        names = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
        for name, values in zip(names, rows, strict=True):
            getattr(self, name)[self.pos] = values
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0


def play(buffer: Ring, steps: int, store: Callable[[Step, Step], tuple[Any, ...]]) -> list[list[Step]]:
    """Fills a buffer with what `store` keeps of each step and the one after it; the steps that are in it, by walk."""
    walks = [walk(seed) for seed in range(buffer.n_envs)]
    played = [[next(one) for _ in range(steps + 1)] for one in walks]
    for step in range(steps):
        kept = [store(one[step], one[step + 1]) for one in played]
        buffer.add(*(np.array(column) for column in zip(*kept, strict=True)))
    return [one[max(0, steps - buffer.buffer_size) : steps] for one in played]


def expected(walks: list[list[Step]]) -> list[Step]:
    """The steps that become transitions: none that times out, or at which recording stops, unless it terminates."""
    kept = [
        step
        for one in walks
        for number, step in enumerate(one, 1)
        if step.terminated or not (step.truncated or number == len(one))
    ]
    # The last row of all becomes none.
    return kept[:-1] if walks[-1][-1].terminated else kept


def compare(data: jaxrl_srpo.Dataset, steps: list[Step], at_terminals: bool = True) -> None:
    """Holds transitions against steps; where a library keeps no state after a terminal, it is not compared."""
    np.testing.assert_array_equal(data.observations, [step.observation for step in steps])
    np.testing.assert_allclose(data.actions, [step.action for step in steps], atol=1e-6)
    np.testing.assert_allclose(data.rewards, [step.reward for step in steps], rtol=1e-6)
    terminals = np.array([step.terminated for step in steps])
    np.testing.assert_array_equal(data.terminals, terminals)
    rows = slice(None) if at_terminals else ~terminals
    np.testing.assert_array_equal(data.next_observations[rows], np.array([step.following for step in steps])[rows])
    assert data.warnings == ()


@pytest.mark.parametrize(("steps", "environments"), [(50, 1), (50, 3), (64, 2), (150, 3)])
def test_stable_baselines3(steps: int, environments: int) -> None:
    def store(step: Step, _: Step) -> tuple[Any, ...]:
        scaled = 2.0 * (step.action - LOW) / (HIGH - LOW) - 1.0
        done = step.terminated or step.truncated
        return step.observation, step.following, scaled, step.reward, done, step.truncated and not step.terminated

    buffer = Ring(64, environments)
    walks = play(buffer, steps, store)
    data = conversion("from_sb3")(buffer, name="sb3", env="MountainCarContinuous-v0")
    compare(data, expected(walks))
    assert (data.name, data.action_low.tolist(), data.action_high.tolist()) == ("sb3", LOW.tolist(), HIGH.tolist())


@pytest.mark.parametrize(("steps", "environments"), [(50, 1), (50, 3), (64, 2), (150, 3)])
def test_cleanrl(steps: int, environments: int) -> None:
    def store(step: Step, later: Step) -> tuple[Any, ...]:
        # Where it terminated, the scripts keep the first observation of the next episode.
        following = later.observation if step.terminated and not step.truncated else step.following
        return step.observation, following, step.action, step.reward, step.terminated, False

    buffer = Ring(64, environments)
    walks = play(buffer, steps, store)
    compare(conversion("from_cleanrl")(buffer), expected(walks), at_terminals=False)


def test_d3rlpy() -> None:
    source, episodes, steps = walk(0), [], []
    for _ in range(12):
        one: list[Step] = []
        while not one or not (one[-1].terminated or one[-1].truncated):
            one.append(next(source))
        steps.append(one)
        episodes.append(
            types.SimpleNamespace(
                observations=np.array([step.observation for step in one]),
                actions=np.array([step.action for step in one]),
                rewards=np.array([[step.reward] for step in one], np.float32),
                terminated=one[-1].terminated,
            )
        )
    assert {episode.terminated for episode in episodes} == {False, True}
    data = conversion("from_d3rlpy")(types.SimpleNamespace(episodes=episodes), action_low=LOW, action_high=HIGH)
    compare(data, expected(steps), at_terminals=False)


def test_the_readme_goes_from_arrays_to_a_policy_in_ten_lines(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = functools.partial(jaxrl_srpo.train, seeds=[0], log=lambda message: None, **synthetic.TINY)
    monkeypatch.setattr(jaxrl_srpo, "train", small, raising=False)
    code = blocks("README.md", "from_arrays")
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    content: dict[str, Any] = {name: swing()[name] for name in names}
    assert len(code.splitlines()) <= 10
    exec(code, content)
    assert gymnasium.make("Pendulum-v1").action_space.contains(np.asarray(content["action"], np.float32))
    assert (tmp_path / "runs" / "mine" / "report" / "table.md").exists()
