"""Episodes of several policies at once are those of each policy alone."""

import pathlib

import gymnasium
import numpy as np

from jaxrl_srpo.runs.policies import Policy, load_policy
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.selection.candidates import find_candidates
from jaxrl_srpo.selection.pulls import FIRST_START, Player


def episode_return(policy: Policy, seed: int) -> float:
    environment = gymnasium.make("Pendulum-v1")
    observation, _ = environment.reset(seed=seed)
    total, done = 0.0, False
    while not done:
        observation, reward, terminated, truncated, _ = environment.step(policy(observation))
        total, done = total + float(reward), terminated or truncated
    return total


def test_returns_are_those_of_the_policies_one_by_one(finished_run: pathlib.Path) -> None:
    run = RunDirectory(finished_run)
    candidates = find_candidates(run, ["iql", "cloning"])
    with Player(run, run.facts()["one"], candidates, at_once=4) as player:
        first, second = player.play([0, 3, 0, 1]), player.play([3, 2])
    assert first.metric == "return"
    assert second.values.shape == (2,)
    played = {(0, 0): first.values[0], (3, 0): first.values[1], (0, 1): first.values[2], (1, 0): first.values[3]}
    played |= {(3, 1): second.values[0], (2, 0): second.values[1]}
    for (arm, number), value in played.items():
        stage, member = candidates[arm]
        policy = load_policy(finished_run, seed=member.seed, algorithm=stage.algorithm)
        expected = episode_return(policy, FIRST_START + number)
        np.testing.assert_allclose(value, expected, rtol=1e-3, err_msg=f"{arm} {number}")


def test_a_policy_that_draws_does_so_alike_whatever_is_played_beside(finished_run: pathlib.Path) -> None:
    run = RunDirectory(finished_run)
    candidates, facts = find_candidates(run, ["bc", "iql"]), run.facts()["one"]
    with Player(run, facts, candidates, at_once=2) as player:
        alone = player.play([0]).values[0]
    with Player(run, facts, candidates, at_once=2) as player:
        assert player.play([2, 0]).values[1] == alone
        assert player.play([0, 2]).values[0] != alone
