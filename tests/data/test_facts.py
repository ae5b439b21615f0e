"""The facts of a dataset: what they say, that they survive JSON, and that they fit the packed rows."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.data.facts import DatasetFacts, dataset_facts
from jaxrl_srpo.data.packing import pack_dataset
from jaxrl_srpo.data.weighting import take_rows, weighted_rows
from tests.data.arrays import random_dataset

RETURNS = np.array([0.0, 1.0, 1.0, 2.0])
GOAL = EnvironmentSpec("PointMaze_UMaze-v3", {"reward_type": "sparse"}, 300, goal_task=True)


@pytest.mark.parametrize(
    ("fields", "metric", "mean"),
    [
        ({}, "return", 1.0),
        ({"environment": GOAL}, "success_rate", 0.75),
        ({"environment": GOAL, "reference": ReferenceReturns(0.0, 2.0)}, "normalized_score", 50.0),
    ],
)
def test_the_measure_is_the_score_else_the_success_rate_else_the_return(
    fields: dict[str, Any], metric: str, mean: float
) -> None:
    facts = dataset_facts(random_dataset(20, episode_returns=RETURNS, **fields), reward_transform="none")
    assert (facts.metric, facts.data_mean, facts.return_mean, facts.episodes) == (metric, mean, 1.0, 4)
    assert facts.data_success_rate == (0.75 if "environment" in fields else None)
    assert facts.environment_spec == fields.get("environment")
    assert facts.reference_returns == fields.get("reference")


def test_facts_survive_json_to_the_last_bit() -> None:
    data = random_dataset(50, low=-0.4, high=0.4, environment=GOAL, reference=ReferenceReturns(-1.0, 3.5))
    facts = dataset_facts(data, reward_transform="d4rl-antmaze", normalize_observations=True)
    again = DatasetFacts(**json.loads(json.dumps(dataclasses.asdict(facts))))
    assert again == facts
    np.testing.assert_array_equal(
        again.units.normalize_observations(data.observations), facts.units.normalize_observations(data.observations)
    )
    np.testing.assert_array_equal(again.units.action_low, data.action_low)


def test_entries_of_older_runs_without_later_fields_are_read() -> None:
    facts = dataset_facts(random_dataset(20), reward_transform="none")
    later = ("data_success_rate", "given", "reward_scale", "reward_shift")
    old = {name: value for name, value in dataclasses.asdict(facts).items() if name not in later}
    units = DatasetFacts(**old).units
    assert (units.reward_scale, units.reward_shift) == (1.0, 0.0)


@pytest.mark.parametrize("weighting", [0.0, 8.0])
def test_units_are_those_of_the_packed_rows(weighting: float) -> None:
    data = random_dataset(100, low=-2.0, high=2.0)
    options: dict[str, Any] = {"trajectory_weighting": weighting, "normalize_observations": True}
    rows = pack_dataset(data, reward_transform="none", **options)
    units = dataset_facts(data, reward_transform="none", **options).units
    learned = take_rows(data, weighted_rows(data, weighting))
    np.testing.assert_array_equal(rows[:, :3], units.normalize_observations(learned.observations))
    np.testing.assert_array_equal(rows[:, 3:5], units.normalize_actions(learned.actions))


def test_a_path_is_kept_absolute_and_a_name_as_it_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.hdf5").touch()
    data = random_dataset(20)
    assert dataset_facts(data, reward_transform="none", given="x.hdf5").given == str(tmp_path / "x.hdf5")
    assert dataset_facts(data, reward_transform="none", given="pointmaze/umaze").given == "pointmaze/umaze"
    assert dataset_facts(data, reward_transform="none").given is None
