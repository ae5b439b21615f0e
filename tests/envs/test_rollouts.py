"""Batched rollouts against plain Gymnasium loops."""

import threading
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.envs import pointmaze
from jaxrl_srpo.envs import rollouts as rollouts_lib
from jaxrl_srpo.envs.make import make_environment
from jaxrl_srpo.envs.rollouts import BackgroundEvaluator, Episodes, Rollouts
from jaxrl_srpo.errors import UserError

pytest.importorskip("mujoco", reason="extra `mujoco` is not installed")
pytest.importorskip("gymnasium_robotics", reason="extra `mujoco` is not installed")

HOPPER = EnvironmentSpec("Hopper-v4")
PENDULUM = EnvironmentSpec("Pendulum-v1", max_episode_steps=5)
# The way to the goal takes no turn: the start is right of the goal.
CORRIDOR = EnvironmentSpec(
    "PointMaze_UMaze-v3",
    {"maze_map": [[1] * 5, [1, "g", 0, "r", 1], [1] * 5], "continuing_task": False},
    max_episode_steps=120,
    goal_task=True,
)


def linear_policy(members: int, observation_size: int, action_size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(members, observation_size, action_size)).astype(np.float32)


def plain_loop(spec: EnvironmentSpec, seed: int, weights: np.ndarray) -> tuple[float, int, list[np.ndarray]]:
    with pytest.warns(DeprecationWarning, match="out of date"):
        environment = gymnasium.make(spec.id)
    observation, _ = environment.reset(seed=seed)
    observations, total, done = [observation], 0.0, False
    while not done:
        action = np.tanh(np.asarray(observation, np.float32) @ weights)
        observation, reward, terminated, truncated, _ = environment.step(action)
        observations.append(observation)
        total, done = total + float(reward), terminated or truncated
    return total, len(observations) - 1, observations


@pytest.mark.parametrize("workers", [1, 3])
def test_returns_are_those_of_plain_gymnasium_loops(workers: int) -> None:
    members, episodes, seed = 2, 3, 11
    weights = linear_policy(members, 11, 3)
    with Rollouts([HOPPER] * members, episodes, seed, workers=workers) as rollouts:
        # A matrix product per row, as in the plain loop, so that the actions are the same to the last bit.
        result = rollouts.run(
            lambda o: np.array([[np.tanh(row @ weights[m]) for row in o[m]] for m in range(members)]), record=True
        )
    assert result.observations is not None
    for member in range(members):
        for episode in range(episodes):
            total, length, observations = plain_loop(HOPPER, seed + episode, weights[member])
            assert result.returns[member, episode] == total
            assert result.lengths[member, episode] == length
            np.testing.assert_array_equal(result.observations[member][episode], np.array(observations, np.float32))
    assert not result.successes.any()


def test_one_policy_call_per_step_with_one_shape_and_the_same_starts_for_all_members() -> None:
    seen: list[np.ndarray] = []

    def act(observations: np.ndarray) -> np.ndarray:
        seen.append(observations)
        return linear_actions(observations)

    weights = linear_policy(3, 11, 3)

    def linear_actions(observations: np.ndarray) -> np.ndarray:
        return np.tanh(np.einsum("meo,moa->mea", observations, weights))

    with Rollouts([HOPPER] * 3, 4, 0) as rollouts:
        first = rollouts.run(act)
        calls = len(seen)
        second = rollouts.run(act)
    assert calls == first.lengths.max()
    assert first.lengths.min() < first.lengths.max()
    assert len(seen) == 2 * calls
    assert {(each.shape, each.dtype) for each in seen} == {((3, 4, 11), np.dtype(np.float32))}
    np.testing.assert_array_equal(seen[0], np.broadcast_to(seen[0][:1], (3, 4, 11)))
    assert len(np.unique(seen[0][0], axis=0)) == 4
    # Every run starts from the same states.
    np.testing.assert_array_equal(seen[0], seen[calls])
    np.testing.assert_array_equal(first.returns, second.returns)


def test_finished_episodes_are_not_stepped_and_keep_their_last_observation() -> None:
    short, long = PENDULUM, EnvironmentSpec("Pendulum-v1", max_episode_steps=8)
    seen = []

    def act(observations: np.ndarray) -> np.ndarray:
        seen.append(observations)
        return np.ones((2, 2, 1))

    with Rollouts([short, long], 2, 0) as rollouts:
        result = rollouts.run(act, record=True)
    np.testing.assert_array_equal(result.lengths, [[5, 5], [8, 8]])
    assert result.observations is not None
    np.testing.assert_array_equal(seen[-1][0], [path[-1] for path in result.observations[0]])
    np.testing.assert_array_equal(result.observations[0][0], result.observations[1][0][:6])


def test_members_may_have_different_environments_and_successes_are_counted() -> None:
    umaze = pointmaze.environment_spec()

    def act(observations: np.ndarray) -> np.ndarray:
        # Full force to the left, which is where the goal is in the corridor and where a wall is in the U.
        return np.broadcast_to(np.array([-1.0, 0.0], np.float32), (*observations.shape[:2], 2))

    with Rollouts([CORRIDOR, umaze], 3, 0) as rollouts:
        assert (rollouts.observation_size, rollouts.action_size) == (6, 2)
        result = rollouts.run(act)
    np.testing.assert_array_equal(result.successes, [[True] * 3, [False] * 3])
    np.testing.assert_array_equal(result.returns, [[1.0] * 3, [0.0] * 3])
    assert result.lengths[0].max() < 120
    np.testing.assert_array_equal(result.lengths[1], [umaze.max_episode_steps] * 3)
    assert rollouts_lib.scores(result, 0, None).metric == "success_rate"
    np.testing.assert_array_equal(rollouts_lib.scores(result, 0, None).values, [1.0] * 3)


def test_scores_are_normalized_where_there_is_a_reference() -> None:
    episodes = Episodes(
        np.array([[10.0, 20.0], [30.0, np.nan]]),
        np.ones((2, 2), np.int64),
        np.array([[False, False], [True, True]]),
        np.array([False, True]),
    )
    assert rollouts_lib.scores(episodes, 0, None).metric == "return"
    np.testing.assert_array_equal(rollouts_lib.scores(episodes, 0, None).values, [10.0, 20.0])
    normalized = rollouts_lib.scores(episodes, 0, ReferenceReturns(random=10.0, expert=30.0))
    assert normalized.metric == "normalized_score"
    np.testing.assert_array_equal(normalized.values, [0.0, 50.0])
    np.testing.assert_array_equal(rollouts_lib.scores(episodes, 1, None).values, [1.0, np.nan])


def test_a_member_with_actions_that_are_not_finite_does_not_disturb_the_others() -> None:
    def act(observations: np.ndarray) -> np.ndarray:
        return np.zeros((*observations.shape[:2], 1))

    def broken(observations: np.ndarray) -> np.ndarray:
        actions = act(observations)
        actions[1, 0] = np.nan
        return actions

    with Rollouts([PENDULUM] * 2, 2, 0) as rollouts:
        expected, result = rollouts.run(act), rollouts.run(broken)
    np.testing.assert_array_equal(np.isnan(result.returns), [[False, False], [True, False]])
    np.testing.assert_array_equal(result.returns[0], expected.returns[0])
    assert result.lengths[1, 0] == 0


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"Pendulum-v1 has observations and actions of widths \(3, 1\), Hopper-v4 of"):
        Rollouts([HOPPER, PENDULUM], 1, 0)
    with pytest.raises(UserError, match=r"CartPole-v1 has actions Discrete\(2\); expected a box"):
        Rollouts([EnvironmentSpec("CartPole-v1")], 1, 0)
    with pytest.raises(UserError, match="both must be at least 1"):
        Rollouts([PENDULUM], 0, 0)
    with (
        Rollouts([PENDULUM], 2, 0) as rollouts,
        pytest.raises(UserError, match=r"shape \(1, 2\); expected \(1, 2, 1\)"),
    ):
        rollouts.run(lambda observations: np.zeros((1, 2)))


@pytest.fixture
def rollouts() -> Iterator[Rollouts]:
    with Rollouts([PENDULUM], 2, 0) as made:
        yield made


def zeros(observations: np.ndarray) -> np.ndarray:
    return np.zeros((*observations.shape[:2], 1))


def test_the_background_evaluator_works_while_the_caller_goes_on(rollouts: Rollouts) -> None:
    proceed, threads = threading.Event(), set()

    def act(observations: np.ndarray) -> np.ndarray:
        threads.add(threading.current_thread())
        proceed.wait()
        return zeros(observations)

    with BackgroundEvaluator() as evaluator:
        first, second = evaluator.submit(rollouts, act), evaluator.submit(rollouts, zeros)
        assert not first.done()
        proceed.set()
        np.testing.assert_array_equal(first.result().returns, second.result().returns)
    assert threads.isdisjoint({threading.current_thread()})
    np.testing.assert_array_equal(first.result().returns, rollouts.run(zeros).returns)


def test_exceptions_of_the_policy_come_out_of_the_future_and_the_next_evaluation_runs(rollouts: Rollouts) -> None:
    def act(observations: np.ndarray) -> np.ndarray:
        raise ValueError("no such policy")

    with BackgroundEvaluator() as evaluator:
        broken, whole = evaluator.submit(rollouts, act), evaluator.submit(rollouts, zeros)
        with pytest.raises(ValueError, match="no such policy"):
            broken.result()
        assert whole.result().lengths.tolist() == [[5, 5]]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_in_the_caller_stops_the_evaluation_under_way(
    rollouts: Rollouts, error: type[BaseException]
) -> None:
    started, proceed, calls = threading.Event(), threading.Event(), []

    def act(observations: np.ndarray) -> np.ndarray:
        calls.append(1)
        started.set()
        proceed.wait()
        return zeros(observations)

    def interrupted() -> None:
        with evaluator:
            futures.extend(evaluator.submit(rollouts, act) for _ in range(2))
            started.wait()
            threading.Timer(0.1, proceed.set).start()
            raise error

    evaluator, futures = BackgroundEvaluator(), []  # type: ignore[var-annotated]
    with pytest.raises(error):
        interrupted()
    assert all(future.done() for future in futures)
    assert len(calls) < 5
    evaluator.close()


def test_policies_may_keep_their_observations(rollouts: Rollouts) -> None:
    seen = []

    def act(observations: np.ndarray) -> np.ndarray:
        seen.append(observations)
        return zeros(observations)

    rollouts.run(act)
    assert len({each.tobytes() for each in seen}) == len(seen)


def test_the_environments_of_rollouts_are_those_of_make_environment() -> None:
    with Rollouts([pointmaze.environment_spec()], 2, 5) as made:
        result = made.run(lambda observations: np.ones((1, 2, 2)), record=True)
    environment = make_environment(pointmaze.environment_spec())
    assert result.observations is not None
    for episode in range(2):
        np.testing.assert_array_equal(result.observations[0][episode][0], environment.reset(seed=5 + episode)[0])


def test_each_episode_may_start_from_a_seed_of_its_own() -> None:
    weights = linear_policy(1, 3, 1)

    def act(observations: np.ndarray) -> np.ndarray:
        actions: np.ndarray = np.tanh(observations @ weights)
        return actions

    with Rollouts([PENDULUM], 3, 0) as rollouts:
        usual, own = rollouts.run(act), rollouts.run(act, seeds=np.array([[2, 0, 7]]))
        again = rollouts.run(act)
    np.testing.assert_allclose(own.returns[0, :2], usual.returns[0, [2, 0]])
    assert own.returns[0, 2] not in usual.returns
    np.testing.assert_array_equal(again.returns, usual.returns)
