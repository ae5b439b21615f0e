"""Windows against a plain loop over episodes."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data.table import Transitions
from jaxrl_srpo.data.windows import starts_of, windows_of
from jaxrl_srpo.types import Array
from tests.data.episodes import episode, transitions_of

LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=5)


@hypothesis.settings(max_examples=30)
@hypothesis.given(LENGTHS, st.sampled_from([1, 3, 6]))
def test_windows_end_with_their_episodes(sizes: list[tuple[int, bool]], horizon: int) -> None:
    """0 follows a termination; windows that a time limit would cut off begin earlier, where they can."""
    random = np.random.default_rng(0)
    episodes = [episode(random, *size) for size in sizes]
    expected = []
    for steps, _, terminates in episodes:
        padded = np.concatenate([steps, np.zeros((horizon, 3))])
        for i in range(len(steps)):
            fits = i + horizon <= len(steps)
            begin = i if fits or terminates or i < horizon - 1 else i - (horizon - 1)
            expected.append(padded[begin : begin + horizon])
    found = first_windows(transitions_of(episodes, before=7, rows_in_all=60), horizon)
    np.testing.assert_allclose(found[: len(expected)], np.stack(expected), rtol=1e-6)


@functools.partial(jax.jit, static_argnames="horizon")
def first_windows(data: Transitions, horizon: int) -> Array:
    batch = data.take(jnp.arange(50))
    return windows_of(starts_of(batch, data, horizon), data, horizon)
