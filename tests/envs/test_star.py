"""The star-shaped navigation task: its walls, its bins and its goals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.envs.star import GOAL_RADIUS, Star
from jaxrl_srpo.errors import UserError

# Neighboring halls of the widest star are closer at the rim than one step is long.
STARS = (Star(), Star(halls=8, length=5.0), Star(halls=2, width=0.6, radius=1.0))


def walk(star: Star, actions: jax.Array) -> np.ndarray:
    """Positions [T + 1, 2] under actions [T, 2]."""

    def step(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = star.step(state, action).state
        return state, star.observe(state)

    start = star.reset(jax.random.key(0))
    positions = jax.jit(lambda actions: jax.lax.scan(step, start, actions)[1])(actions)
    return np.concatenate([np.asarray(star.observe(start))[None], np.asarray(positions)])


@pytest.mark.parametrize("star", STARS, ids=lambda star: f"{star.halls}-halls")
def test_a_walker_never_leaves_the_star_and_never_crosses_a_wall(star: Star) -> None:
    # Long runs in one direction reach the halls, which independent actions rarely do.
    key_direction, key_noise = jax.random.split(jax.random.key(1))
    directions = jnp.repeat(jax.random.uniform(key_direction, (200, 2), minval=-1.5, maxval=1.5), 20, axis=0)
    positions = walk(star, directions + jax.random.normal(key_noise, directions.shape))
    assert star.contains(positions * (1.0 - 1e-5)).all()
    # Projecting onto a convex set makes no distance longer.
    assert np.linalg.norm(np.diff(positions, axis=0), axis=-1).max() <= star.stride * np.sqrt(2.0) + 1e-4
    # Between two halls there is only the center: no segment passes outside of it.
    between = positions[:-1, None] + np.linspace(0.0, 1.0, 9)[None, :, None] * np.diff(positions, axis=0)[:, None]
    inside = star.contains(between * (1.0 - 1e-5)).all(-1)
    assert inside.mean() > 0.9
    outside = np.linalg.norm(between[~inside], axis=-1)
    assert not outside.size or outside.max() < star.radius + star.stride * np.sqrt(2.0)


def test_the_end_of_every_hall_is_reached_by_going_straight_and_is_a_goal() -> None:
    star = Star(halls=5)
    for hall, direction in enumerate(star._directions()):
        # An action is clipped per axis, so the slowest direction still takes a stride per step.
        positions = walk(star, jnp.broadcast_to(jnp.asarray(direction), (60, 2)))
        np.testing.assert_allclose(positions[-1], 12.0 * direction, atol=1e-4)
        goals = np.asarray(star.in_goals(jnp.asarray(positions)))
        assert goals[-1].tolist() == [k == hall for k in range(5)]
        assert goals.any(-1).tolist() == [np.linalg.norm(p - 12.0 * direction) <= GOAL_RADIUS for p in positions]
    rest = jnp.zeros(2)
    assert float(star.step(jnp.asarray([12.0, 0.3]), rest).reward) == 1.0
    assert float(star.step(jnp.asarray([11.0, 0.0]), rest).reward) == 0.0


def test_walls_slide() -> None:
    star = Star()
    state = star.step(jnp.asarray([5.0, 0.4]), jnp.asarray([1.0, 1.0])).state
    np.testing.assert_allclose(state, [5.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(star.step(state, jnp.asarray([9.0, 0.0])).state, [6.0, 0.5], atol=1e-6)
    # The rim beside a hall is a wall.
    at_rim = 2.0 * jnp.asarray([np.cos(1.0), np.sin(1.0)], jnp.float32)
    moved = star.step(at_rim, jnp.asarray([1.0, 1.0])).state
    np.testing.assert_allclose(jnp.linalg.norm(moved), 2.0, atol=1e-5)


def test_bins_are_those_that_the_walls_enclose() -> None:
    star = Star()
    assert star.reachable().sum() == 84
    assert [Star(halls=n).reachable().sum() for n in (5, 7)] == [132, 180]
    grid = star.grid()
    assert (grid.low, grid.shape) == ((-12.0, -12.0), (24, 24))
    bins = np.asarray(grid.bins(jnp.asarray([[0.5, 0.5], [-0.5, 0.5], [11.9, 0.1], [99.0, 99.0]])))
    np.testing.assert_array_equal(grid.centers()[bins], [[0.5, 0.5], [-0.5, 0.5], [11.5, 0.5], [11.5, 11.5]])
    assert star.reachable()[bins[:3]].all()
    assert not star.reachable()[bins[3]]


@pytest.mark.parametrize(
    ("touching", "overlapping", "bins"),
    [
        # The top of the center, beside the hall that covers the bin on its left.
        (Star(), Star(radius=2.001, length=9.999), [(0.5, 2.5)]),
        # The walls of a hall.
        (Star(halls=1, width=2.0), Star(halls=1, width=2.002), [(5.5, 1.5), (5.5, -1.5)]),
        (Star(halls=4, width=2.0), Star(halls=4, width=2.002), [(1.5, 5.5), (-1.5, -5.5)]),
    ],
)
def test_a_sliver_of_a_bin_is_reachable_and_its_edge_is_not(
    touching: Star, overlapping: Star, bins: list[tuple[float, float]]
) -> None:
    for star, expected in ((touching, False), (overlapping, True)):
        at = np.asarray(star.grid().bins(jnp.asarray(bins)))
        np.testing.assert_array_equal(star.grid().centers()[at], bins)
        assert (star.reachable()[at] == expected).all()


def test_a_walker_in_the_corner_of_a_hall_is_in_a_reachable_bin() -> None:
    star = Star(halls=5)
    position = star.place(2, 11.8)
    for _ in range(5):
        position = star.move(position, np.asarray([-1.0, -1.0]), np)
    # The corner of the hall reaches two thousandths of a unit into this bin.
    np.testing.assert_allclose(position, [-10.0021, 6.6489], atol=1e-4)
    assert star.reachable()[int(star.grid().bins(jnp.asarray(position)))]


def test_stars_that_cannot_be_built_are_refused() -> None:
    with pytest.raises(UserError, match=r"13 halls of width 1\.0 overlap"):
        Star(halls=13).check()
    with pytest.raises(UserError, match="above 0"):
        Star(length=0.0).check()
    assert Star(halls=12).check() == Star(halls=12)
