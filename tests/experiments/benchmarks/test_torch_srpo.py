"""The PyTorch statement of the three stages against the package's, from the same parameters, batches and draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_srpo.methods import behavior, iql, srpo
from jaxrl_srpo.nn import networks
from jaxrl_srpo.types import Batch, Spec

torch = pytest.importorskip("torch", reason="needs the extra `torch`", exc_type=ImportError)
torch_srpo = pytest.importorskip("experiments.benchmarks.torch_srpo")

SPEC = Spec(observation_size=5, action_size=3)
BATCH = 32
UPDATES = 3
TOTAL_STEPS = 6


def batch_of(seed: int) -> Batch:
    random = np.random.default_rng(seed)
    s, a = SPEC.observation_size, SPEC.action_size
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
    params = networks.split_heads(params)
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
    settings = behavior.Settings(
        batch_size=BATCH, learning_rate=3e-3, weight_decay=1.0, width=32, hidden=64, blocks=2, dropout_rate=0.0
    )
    state = behavior.init(jax.random.key(0), SPEC, settings)
    trainer = torch_srpo.Behavior(SPEC, settings)
    load(score_linears(trainer.network), state.score.params)
    trainer.network.frequencies.copy_(torch.tensor(np.asarray(jax.tree.leaves(state.constants)[0])))
    update = jax.jit(behavior.update)
    for i in range(UPDATES):
        batch, key = batch_of(i), jax.random.key(100 + i)
        key_time, key_noise, _ = jax.random.split(key, 3)
        times = jax.random.uniform(key_time, (BATCH,), minval=1e-3, maxval=1.0)
        noise = jax.random.normal(key_noise, batch.actions.shape)
        state, metrics = update(state, batch, key, settings)
        arguments = (to_torch(batch), torch.tensor(np.asarray(times)), torch.tensor(np.asarray(noise)))
        np.testing.assert_allclose(trainer.losses(*arguments).item(), metrics["loss"], rtol=1e-5)
        trainer.step(*arguments)
        assert_equal(score_linears(trainer.network), state.score.params)


def test_critic() -> None:
    settings = iql.Settings(
        steps=TOTAL_STEPS,
        batch_size=BATCH,
        expectile=0.8,
        target_rate=0.1,
        temperature=2.0,
        width=32,
        actor_layers=3,
    )
    state = iql.init(jax.random.key(1), SPEC, settings)
    trainer = torch_srpo.Critic(SPEC, settings)
    pairs = {"q": state.q.params, "target_q": state.target_q, "value": state.value.params, "actor": state.actor.params}
    for name, params in pairs.items():
        load(linears(getattr(trainer, name)), params)
    update = jax.jit(iql.update)
    for i in range(UPDATES):
        state, _ = update(state, batch_of(i), settings)
        trainer.step(to_torch(batch_of(i)))
    pairs = {"q": state.q.params, "target_q": state.target_q, "value": state.value.params, "actor": state.actor.params}
    for name, params in pairs.items():
        assert_equal(linears(getattr(trainer, name)), params)


@pytest.mark.parametrize("q_gradient", ["raw", "sample", "batch"])
@pytest.mark.parametrize("minus_noise", [False, True])
@pytest.mark.parametrize("weighting", ["sigma2", "one", "alpha_over_sigma"])
def test_policy(q_gradient: Any, minus_noise: bool, weighting: Any) -> None:
    settings = srpo.Settings(
        steps=TOTAL_STEPS,
        batch_size=BATCH,
        learning_rate=1e-3,
        beta=0.7,
        weighting=weighting,
        minus_noise=minus_noise,
        q_gradient=q_gradient,
        width=32,
    )
    behavior_settings = behavior.Settings(width=32, hidden=64, blocks=1)
    model = behavior.model_of(behavior.init(jax.random.key(2), SPEC, behavior_settings))
    critic = iql.result_of(iql.init(jax.random.key(3), SPEC, iql.Settings(width=32))).critic
    frozen = srpo.Frozen(model, critic)
    state = srpo.init(jax.random.key(4), SPEC, settings, frozen)
    score, q = torch_srpo.ScoreNetwork(SPEC, behavior_settings), torch_srpo.TwinQ(SPEC, 32)
    load(score_linears(score), model.params)
    load(linears(q), critic.params)
    score.frequencies.copy_(torch.tensor(np.asarray(jax.tree.leaves(model.constants)[0])))
    trainer = torch_srpo.Policy(SPEC, settings, score, q)
    load(linears(trainer.actor), state.actor.params)
    update = jax.jit(srpo.update)
    for i in range(UPDATES):
        batch, key = batch_of(i), jax.random.key(200 + i)
        key_time, key_noise = jax.random.split(key)
        times = jax.random.uniform(key_time, (BATCH,), minval=settings.time_min, maxval=settings.time_max)
        noise = jax.random.normal(key_noise, batch.actions.shape)
        state, _ = update(state, batch, key, settings, frozen)
        trainer.step(to_torch(batch), torch.tensor(np.asarray(times)), torch.tensor(np.asarray(noise)))
    assert_equal(linears(trainer.actor), state.actor.params)
