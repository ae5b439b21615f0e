"""Episode after episode in Gymnasium: starts, units, ends and resuming, against plain loops."""

from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.units import Units
from jaxrl_srpo.envs.episodes import MemberEnvironments, Outcome
from jaxrl_srpo.errors import UserError

PENDULUM = EnvironmentSpec("Pendulum-v1", max_episode_steps=4)
UNITS = Units(np.array([0.5, -0.5, 2.0], np.float32), np.array([2.0, 1.0, 4.0], np.float32), 0.1, -1.0)


def make(entropy: Sequence[Sequence[int]] = ((7,), (8,)), units: Units = UNITS, count: int = 2) -> MemberEnvironments:
    return MemberEnvironments([PENDULUM] * len(entropy), [units] * len(entropy), entropy, count)


def actions(steps: int, members: int = 2, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.0, 1.0, (steps, members, count, 1)).astype(np.float32)


def test_learners_see_their_units_and_act_in_the_unit_box() -> None:
    plain_units, ours = make(units=Units()), make()
    np.testing.assert_array_equal(UNITS.normalize_observations(plain_units.reset()), ours.reset())
    for action in actions(6):
        plain, seen = plain_units.step(action), ours.step(action)
        for name in ("observations", "next_observations"):
            expected = UNITS.normalize_observations(getattr(plain, name))
            np.testing.assert_array_equal(getattr(seen, name), expected)
        np.testing.assert_array_equal(seen.rewards, UNITS.scale_rewards(plain.rewards))
        np.testing.assert_array_equal(seen.returns, plain.returns)
    for own in (plain_units, ours):
        own.close()


def test_an_action_of_one_is_the_largest_of_the_environment() -> None:
    ours, theirs = make(((3,),), Units(), 1), gymnasium.make("Pendulum-v1")
    first = ours.reset()[0, 0]
    theirs.reset()
    theirs.unwrapped.state = np.array([np.arctan2(first[1], first[0]), first[2]])  # type: ignore[attr-defined]
    expected = theirs.step(np.array([2.0], np.float32))
    outcome = ours.step(np.ones((1, 1, 1), np.float32))
    np.testing.assert_allclose(outcome.next_observations[0, 0], expected[0], atol=1e-5)
    np.testing.assert_allclose(outcome.rewards[0, 0], float(expected[1]), atol=1e-5)
    ours.close()


def test_ends_begin_the_next_episode_and_keep_the_last_observation() -> None:
    ours = make(units=Units())
    ours.reset()
    outcomes = [ours.step(action) for action in actions(8)]
    assert [bool(outcome.ended.all()) for outcome in outcomes] == [False, False, False, True] * 2
    assert not any(outcome.terminated.any() for outcome in outcomes)
    assert [outcome.lengths[0, 0] for outcome in outcomes] == [1, 2, 3, 4] * 2
    np.testing.assert_allclose(outcomes[7].returns, sum(outcome.rewards for outcome in outcomes[4:]), rtol=1e-5)
    end, inside = outcomes[3], outcomes[2]
    np.testing.assert_array_equal(inside.observations, inside.next_observations)
    assert np.abs(end.observations - end.next_observations).max(axis=-1).min() > 1e-3
    ours.close()


def test_starts_depend_on_entropy_environment_and_episode_alone() -> None:
    together, alone = make(((7,), (8,))), make(((8,),))
    np.testing.assert_array_equal(together.reset()[1], alone.reset()[0])
    for action, other in zip(actions(4), -actions(4), strict=True):
        last, last_alone = together.step(action), alone.step(other[1:])
    # Other actions, the same second start.
    assert last.ended.all()
    np.testing.assert_array_equal(last.observations[1], last_alone.observations[0])
    starts = together.reset().reshape(4, -1)
    assert len(np.unique(starts, axis=0)) == 4
    together.close()
    alone.close()


def test_a_restored_state_goes_on_bitwise() -> None:
    whole, again = make(), make()
    whole.reset()
    for action in actions(6):
        whole.step(action)
    again.restore(whole.state())
    for action in -actions(5):
        one, other = whole.step(action), again.step(action)
        for name in Outcome._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    whole.close()
    again.close()


def test_environments_that_cannot_be_learned_in_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*specs: EnvironmentSpec) -> str:
        with pytest.raises(UserError) as raised:
            MemberEnvironments(specs, [Units()] * len(specs), [[0]] * len(specs), 1)
        return str(raised.value)

    message = refused(PENDULUM, EnvironmentSpec("MountainCarContinuous-v0"))
    assert "MountainCarContinuous-v0 has observations and actions of widths (2, 1)" in message
    endless = gymnasium.envs.registration.EnvSpec("EndlessPendulum-v0", "gymnasium.envs.classic_control:PendulumEnv")
    monkeypatch.setitem(gymnasium.registry, endless.id, endless)
    message = refused(EnvironmentSpec(endless.id))
    assert message == "environment EndlessPendulum-v0 has no time limit; give one as max_episode_steps"
