# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Data and a method of your own
#
# You make a dataset from arrays, write a method of forty lines, and train it beside a method of the package.

# %%
from typing import Any, ClassVar

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import jaxrl_srpo
from jaxrl_srpo.methods import presets
from jaxrl_srpo.methods.contract import Method, Preset, Stage
from jaxrl_srpo.methods.settings import setting
from jaxrl_srpo.nn import networks
from jaxrl_srpo.nn.learner import Learner
from jaxrl_srpo.nn.policies import DeterministicPolicy
from jaxrl_srpo.types import Array, Batch, Metrics, Spec

out = "runs/tutorial_own"
episodes = 20
size: dict[str, Any] = {"budget": 0.1}

# %% [markdown]
# ## Data
#
# One row is one step, in the order of time, one episode after another. Mark a time limit in `timeouts`, not in
# `terminals`: Pendulum never terminates.

# %%
environment = gymnasium.make("Pendulum-v1")
environment.action_space.seed(0)
rows: dict[str, list[Any]] = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
for episode in range(episodes):
    observation, _ = environment.reset(seed=episode)
    truncated = False
    while not truncated:
        action = environment.action_space.sample()
        following, reward, terminated, truncated, _ = environment.step(action)
        for name, value in zip(rows, (observation, action, reward, terminated, truncated), strict=True):
            rows[name].append(value)
        observation = following

arrays: dict[str, Any] = {name: np.array(values) for name, values in rows.items()}
data = jaxrl_srpo.Dataset.from_arrays(**arrays, action_low=-2.0, action_high=2.0, name="swing", env="Pendulum-v1")

# %% [markdown]
# ## A method
#
# This one clones the actions by least squares. Each setting is a keyword of `train` and a flag; `swept=True` lets
# several values train in one program.


# %%
@struct.dataclass
class Settings:
    """Settings of plain cloning."""

    prefix: ClassVar[str] = "plain"
    title: ClassVar[str] = "Plain cloning"

    steps: int = setting(1000, "updates of plain cloning", minimum=1, scaled=True)
    batch_size: int = setting(64, "batch size of plain cloning", minimum=1)
    learning_rate: float = setting(1e-3, "Adam learning rate of plain cloning", swept=True)
    width: int = setting(32, "width of the actor", minimum=1)


def init(key: Array, spec: Spec, settings: Settings) -> Learner:
    """Fresh state of one member."""
    network = networks.Actor(spec.action_size, settings.width)
    return Learner.create(network, key, jnp.zeros((1, spec.observation_size)))


def update(state: Learner, batch: Batch, settings: Settings) -> tuple[Learner, Metrics]:
    """One step towards the dataset's actions."""

    def loss(params: Any) -> Array:
        return jnp.mean((state.apply(params, batch.observations) - batch.actions) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.params)
    return state.apply_gradients(gradient, settings.learning_rate), {"loss": value}


def policy_of(state: Learner) -> DeterministicPolicy:
    """What is kept and acts."""
    return DeterministicPolicy(state.params, state.network)


STAGE = Stage(
    name="plain",
    algorithm="plain",
    label="plain cloning",
    settings=Settings,
    init=init,
    update=update,
    result=policy_of,
    learns_values=False,
    metrics={"loss": "squared distance to the dataset's actions"},
)
METHOD = Method(
    name="plain",
    source="least squares",
    stages=(STAGE,),
    presets={"quick": Preset("small budgets for CPUs", lambda dataset, family: presets.quick(family))},
)

# %% [markdown]
# ## Train both
#
# The table, resume, evaluation and pictures come with the contract. TD3+BC trains beside it on the same data.
# Methods of one run need equal presets for what they share, so `METHOD` takes the values of the package.

# %%
table = jaxrl_srpo.train(data, out=out, seeds=[0, 1], algorithm=[METHOD, "td3_bc"], **size)
table

# %% [markdown]
# A run directory never names code that is then run. Name the method again to act with it.

# %%
policy = jaxrl_srpo.load_policy(out, seed=0, algorithm=METHOD)
policy(arrays["observations"][0])
