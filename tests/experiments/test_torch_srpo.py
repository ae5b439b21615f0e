"""The PyTorch statement of the three stages against the package's, from the same parameters, batches and draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import behavior, iql, srpo
from jaxrl_srpo.types import Batch, Spec

torch = pytest.importorskip("torch", reason="needs the extra `torch`", exc_type=ImportError)
torch_srpo = pytest.importorskip("torch_srpo")

SPEC = Spec(observation_size=5, action_size=3)
BATCH = 32
UPDATES = 3
TOTAL_STEPS = 6.0


def batch_of(seed: int) -> Batch:
    random = np.random.default_rng(seed)
    s, a = SPEC
    arrays = {
        "observations": random.standard_normal((BATCH, s), np.float32),
        "actions": np.tanh(random.standard_normal((BATCH, a), np.float32)),
        "rewards": random.standard_normal(BATCH, np.float32),
        "next_observations": random.standard_normal((BATCH, s), np.float32),
        "discounts": (random.random(BATCH) < 0.8).astype(np.float32),
    }
    return Batch(**{name: jnp.asarray(array) for name, array in arrays.items()})


def to_torch(batch: Batch) -> Any:
    names = torch_srpo.Batch._fields
    return torch_srpo.Batch(**{name: torch.tensor(np.asarray(getattr(batch, name))) for name in names})


def dense_layers(params: Any) -> Any:
    """Flax's affine layers of a subtree, as (kernel, bias)."""
    if "kernel" in params:
        return [(params["kernel"], params["bias"])]
    return [layer for name in sorted(params) if name != "LayerNorm_0" for layer in dense_layers(params[name])]


def linears(module: Any) -> Any:
    return [child for child in module.modules() if isinstance(child, torch.nn.Linear)]


def score_linears(network: Any) -> Any:
    """In the order of Flax's names, which count the outer of two nested layers first."""
    blocks = [list(reversed(linears(block))) for block in network.blocks]
    layers = [*reversed(linears(network.time)), network.inlet, *linears(network.outlet)]
    return layers + [layer for block in blocks for layer in block]


def load(layers: Any, params: Any) -> None:
    with torch.no_grad():
        for layer, (kernel, bias) in zip(layers, dense_layers(params), strict=True):
            layer.weight.copy_(torch.tensor(np.asarray(kernel).T))
            layer.bias.copy_(torch.tensor(np.asarray(bias)))


def assert_equal(layers: Any, params: Any) -> None:
    for layer, (kernel, bias) in zip(layers, dense_layers(params), strict=True):
        np.testing.assert_allclose(layer.weight.detach().numpy().T, kernel, atol=1e-5)
        np.testing.assert_allclose(layer.bias.detach().numpy(), bias, atol=1e-5)


def test_behavior() -> None:
    config = behavior.Config(batch_size=BATCH, width=32, hidden=64, blocks=2, dropout_rate=0.0)
    hyper = behavior.Hyper(learning_rate=3e-3, weight_decay=1.0)
    state = behavior.init(jax.random.key(0), SPEC, config, hyper)
    trainer = torch_srpo.Behavior(SPEC, config, hyper)
    load(score_linears(trainer.network), state.params)
    trainer.network.frequencies.copy_(torch.tensor(np.asarray(jax.tree.leaves(state.constants)[0])))
    update = jax.jit(behavior.update)
    for i in range(UPDATES):
        batch, key = batch_of(i), jax.random.key(100 + i)
        key_time, key_noise, _ = jax.random.split(key, 3)
        times = jax.random.uniform(key_time, (BATCH,), minval=1e-3, maxval=1.0)
        noise = jax.random.normal(key_noise, batch.actions.shape)
        state, metrics = update(state, batch, key, hyper)
        arguments = (to_torch(batch), torch.tensor(np.asarray(times)), torch.tensor(np.asarray(noise)))
        np.testing.assert_allclose(trainer.losses(*arguments).item(), metrics["loss"], rtol=1e-5)
        trainer.step(*arguments)
        assert_equal(score_linears(trainer.network), state.params)


def test_critic() -> None:
    config = iql.Config(batch_size=BATCH, width=32, actor_width=32, actor_layers=3)
    hyper = iql.Hyper(expectile=0.8, target_rate=0.1, temperature=2.0, total_steps=TOTAL_STEPS)
    state = iql.init(jax.random.key(1), SPEC, config, hyper)
    trainer = torch_srpo.Critic(SPEC, config, hyper)
    pairs = {"q": state.q.params, "target_q": state.target_q, "value": state.value.params, "actor": state.actor.params}
    for name, params in pairs.items():
        load(linears(getattr(trainer, name)), params)
    update = jax.jit(iql.update)
    for i in range(UPDATES):
        state, _ = update(state, batch_of(i), jax.random.key(0), hyper)
        trainer.step(to_torch(batch_of(i)))
    pairs = {"q": state.q.params, "target_q": state.target_q, "value": state.value.params, "actor": state.actor.params}
    for name, params in pairs.items():
        assert_equal(linears(getattr(trainer, name)), params)


@pytest.mark.parametrize("q_gradient", ["raw", "sample", "batch"])
@pytest.mark.parametrize("minus_noise", [False, True])
@pytest.mark.parametrize("weighting", ["sigma2", "one", "alpha_over_sigma"])
def test_policy(q_gradient: Any, minus_noise: bool, weighting: Any) -> None:
    config = srpo.Config(
        batch_size=BATCH, width=32, q_gradient=q_gradient, minus_noise=minus_noise, weighting=weighting
    )
    hyper = srpo.Hyper(beta=0.7, learning_rate=1e-3, total_steps=TOTAL_STEPS)
    behavior_config, critic_config = behavior.Config(width=32, hidden=64, blocks=1), iql.Config(width=32)
    model = behavior.init(jax.random.key(2), SPEC, behavior_config, behavior.Hyper()).model
    critic = iql.init(jax.random.key(3), SPEC, critic_config, iql.Hyper()).critic
    frozen = srpo.Frozen(model, critic)
    state = srpo.init(jax.random.key(4), SPEC, config, hyper, frozen)
    score, q = torch_srpo.ScoreNetwork(SPEC, behavior_config), torch_srpo.TwinQ(SPEC, 32)
    load(score_linears(score), model.params)
    load(linears(q), critic.params)
    score.frequencies.copy_(torch.tensor(np.asarray(jax.tree.leaves(model.constants)[0])))
    trainer = torch_srpo.Policy(SPEC, config, hyper, score, q)
    load(linears(trainer.actor), state.params)
    update = jax.jit(srpo.update)
    for i in range(UPDATES):
        batch, key = batch_of(i), jax.random.key(200 + i)
        key_time, key_noise = jax.random.split(key)
        times = jax.random.uniform(key_time, (BATCH,), minval=hyper.time_min, maxval=hyper.time_max)
        noise = jax.random.normal(key_noise, batch.actions.shape)
        state, _ = update(state, batch, key, hyper, frozen)
        trainer.step(to_torch(batch), torch.tensor(np.asarray(times)), torch.tensor(np.asarray(noise)))
    assert_equal(linears(trainer.actor), state.params)
