"""Noise by a key and noise that is given make the same actions, and every policy says how much it needs."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo.nn.noise import Columns, Drawing, Given, Keyed, Noise, columns_of
from jaxrl_srpo.nn.policies import repeated, take_candidates
from jaxrl_srpo.types import Array

STEPS, CANDIDATES = 2, 3


@struct.dataclass
class Walk(Drawing):
    """Of several walks of two steps the end of one, chosen by Gumbel noise; both steps and the choice are drawn."""

    def act_with(self, observations: Array, noise: Noise) -> Array:
        drawn, choice = noise.split()
        states = repeated(observations, CANDIDATES)
        start, step = drawn.split()
        added = step.normals(STEPS, states.shape)
        ends, _ = jax.lax.scan(
            lambda x, i: (x + added(i), None), states + start.normal(states.shape), jnp.arange(STEPS)
        )
        logits = ends[:, 0].reshape(-1, CANDIDATES)
        return take_candidates(ends, jnp.argmax(logits + choice.gumbel(logits.shape), axis=-1))


def test_the_columns_that_a_policy_needs() -> None:
    assert columns_of(Walk(), 4) == [Columns("normal", CANDIDATES * 4 * (1 + STEPS)), Columns("gumbel", CANDIDATES)]


def test_numbers_of_a_key_that_are_given_make_the_same_actions() -> None:
    key, observations = jax.random.key(0), jnp.arange(20.0).reshape(5, 4)
    key_drawn, key_choice = jax.random.split(key)
    key_start, key_step = jax.random.split(key_drawn)
    rows = (5 * CANDIDATES, 4)
    numbers = [jax.random.normal(key_start, rows)]
    numbers += [jax.random.normal(jax.random.fold_in(key_step, i), rows) for i in range(STEPS)]
    numbers.append(jax.random.gumbel(key_choice, (5, CANDIDATES)))
    noise = jnp.concatenate([one.reshape(5, -1) for one in numbers], axis=1)
    by_key = Walk().act(observations, key)
    # A key's numbers are drawn inside the compiled loop, where the last bit may round otherwise.
    np.testing.assert_allclose(Walk().act_with(observations, Given(noise)), by_key, rtol=1e-6)
    assert not np.allclose(Walk().act_with(observations, Given(noise + 0.1)), by_key)


def test_a_row_acts_by_its_own_noise() -> None:
    observations = jnp.zeros((3, 2))
    noise = jax.random.normal(jax.random.key(1), (3, CANDIDATES * 2 * (1 + STEPS) + CANDIDATES))
    together = Walk().act_with(observations, Given(noise))
    alone = [Walk().act_with(observations[i : i + 1], Given(noise[i : i + 1]))[0] for i in range(3)]
    np.testing.assert_array_equal(together, jnp.stack(alone))


def test_a_key_gives_each_step_its_own_numbers() -> None:
    added = Keyed(jax.random.key(0)).normals(2, (4,))
    assert not np.array_equal(added(jnp.int32(0)), added(jnp.int32(1)))
