"""What a population costs: operations that are counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import workload
from experiments.benchmarks.workload import Workload, matrix_flop, random_rows, update_flop
from jaxrl_srpo.data.table import unpack
from jaxrl_srpo.methods import awac, srpo, td3_bc
from jaxrl_srpo.methods.contract import preset_values
from jaxrl_srpo.methods.settings import Values
from jaxrl_srpo.types import Spec

SPEC = Spec(observation_size=5, action_size=3)
BATCH, WIDTH = 16, 8
TINY = Values({"awac_batch_size": BATCH, "awac_actor_width": WIDTH, "awac_actor_layers": 1})


def test_products_are_counted_and_those_of_a_scan_once_per_iteration() -> None:
    def program(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 4, lambda i, y: y @ w, x) @ w

    traced = jax.make_jaxpr(program)(jnp.zeros((3, 7)), jnp.zeros((7, 7)))
    assert matrix_flop(traced.jaxpr) == (4 + 1) * 2 * 3 * 7 * 7


def test_an_update_has_two_passes_more_than_a_forward_pass() -> None:
    forward = 2 * (SPEC.observation_size * WIDTH + WIDTH * SPEC.action_size)
    # Backward: the gradient of both kernels, and of the hidden layer but not of the observations.
    backward = forward + 2 * WIDTH * SPEC.action_size
    # The network is initialized by a pass of a single observation.
    assert update_flop(awac.CLONING, TINY, SPEC) == BATCH * (forward + backward) + forward


def test_groups_share_untrained_results_of_every_stage_that_is_needed() -> None:
    settings = preset_values([srpo.METHOD], "quick", "", "locomotion")
    frozen = jax.eval_shape(lambda: workload._untrained(srpo.STAGE, settings, SPEC, 3))
    assert {x.shape[0] for x in jax.tree.leaves(frozen)} == {3}
    assert jax.tree.leaves(frozen.initial_actor)


def test_members_learn_from_the_whole_table() -> None:
    members = Workload(awac.CLONING, TINY, SPEC, groups=2, members_per_group=3, rows=100).describe()
    assert members.keys.shape == (2, 3)
    np.testing.assert_array_equal(members.where.offset, np.zeros((2, 3)))
    np.testing.assert_array_equal(members.where.size, np.full((2, 3), 100))


def test_random_rows_are_transitions_without_terminals() -> None:
    rows = random_rows(SPEC, 50)
    assert rows.shape == (50, 2 * 5 + 3 + 2)
    assert np.abs(rows[:, 5:8]).max() <= 1.0
    np.testing.assert_array_equal(rows[:, -1], 1.0)


def test_convolutions_are_counted() -> None:
    def program(x: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=layout)

    traced = jax.make_jaxpr(program)(jnp.zeros((2, 10, 4)), jnp.zeros((5, 4, 6)))
    assert matrix_flop(traced.jaxpr) == 2 * (2 * 10 * 6) * (5 * 4)


def test_stages_get_the_columns_that_they_ask_for() -> None:
    spec = td3_bc.REBRAC.spec(SPEC)
    batch = unpack(jnp.asarray(random_rows(spec, 600)), spec)
    assert batch.next_actions is not None
    assert batch.steps_left is not None
    assert float(jnp.abs(batch.next_actions).max()) <= 1.0
    np.testing.assert_array_equal(batch.steps_left[510:514], [1, 0, 511, 510])
    np.testing.assert_array_equal(batch.discounts, 1.0)
    own = Values({"rebrac_batch_size": 4, "rebrac_width": 8, "rebrac_layers": 1})
    assert update_flop(td3_bc.REBRAC, own, SPEC) > 0
    assert Workload(td3_bc.REBRAC, own, SPEC, groups=1, members_per_group=1, rows=20).population().state_bytes > 0
