"""What a dataset says of itself."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.data.dataset import EnvironmentSpec, ReferenceReturns
from tests.data.arrays import random_dataset


def test_sizes() -> None:
    data = random_dataset(12, observation_size=4, action_size=3)
    assert (data.size, data.observation_size, data.action_size) == (12, 4, 3)


def test_an_environment_survives_json() -> None:
    spec = EnvironmentSpec("PointMaze_UMaze-v3", {"maze_map": [[1, "g"], ["r", 0]]}, 300, goal_task=True)
    assert EnvironmentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_scores_are_0_for_random_and_100_for_expert() -> None:
    scores = ReferenceReturns(random=-20.0, expert=30.0).normalize(np.array([-20.0, 5.0, 30.0, 55.0]))
    assert scores.tolist() == [0.0, 50.0, 100.0, 150.0]


@given(st.floats(-1e4, 1e4), st.floats(1.0, 1e4), st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_scores_are_linear_in_returns(random: float, span: float, first: float, second: float) -> None:
    reference = ReferenceReturns(random, random + span)
    low, high, middle = reference.normalize(np.array([first, second, 0.5 * (first + second)]))
    assert middle == pytest.approx(0.5 * (low + high), rel=1e-6, abs=1e-5)
