"""The stages of SRPO as data: what each trains, what it needs, what it keeps, and the policy it is judged by."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_srpo import settings as settings_lib
from jaxrl_srpo.algorithms import behavior, iql, srpo
from jaxrl_srpo.population import Act, Init, Update
from jaxrl_srpo.settings import FIELDS, Settings, StageName
from jaxrl_srpo.types import Array, Spec


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a method.

    Attributes:
      name: of the stage.
      algorithm: what tables call the policy that the stage is evaluated by.
      version: raised whenever the stage's code gives other numbers, so that older results are not taken for its own.
      init: the algorithm's `init`.
      update: the algorithm's `update`.
      config: static configuration from settings.
      hyper: swept numbers from settings.
      result: what is kept of a finished state; a pytree.
      policy: what acts, from a result; a pytree.
      act: gives (policy, observations [B, observation_size], key) -> actions [B, action_size] in [-1, 1].
      needs: earlier stages whose results it uses.
      evaluation_interval: setting with the updates between evaluations; None evaluates at the end only.
    """

    name: StageName
    algorithm: str
    version: int
    init: Init
    update: Update
    config: Callable[[Settings], Any]
    hyper: Callable[[Settings], Any]
    result: Callable[[Any], Any]
    policy: Callable[[Any], Any]
    act: Callable[[Settings, Spec], Act]
    needs: tuple[StageName, ...] = ()
    evaluation_interval: str | None = None

    def steps(self, settings: Settings) -> int:
        """Number of updates."""
        return getattr(settings, f"{self.name}_steps")

    def interval(self, settings: Settings) -> int:
        """Updates between evaluations."""
        return getattr(settings, self.evaluation_interval) if self.evaluation_interval else self.steps(settings)

    def own_settings(self, settings: Settings) -> dict[str, Any]:
        """The settings that belong to this stage, or to the data that every stage learns from."""
        own = (self.name, "data")
        return {name: getattr(settings, name) for name, field in FIELDS.items() if field.metadata["stage"] in own}

    def template(self, settings: Settings, spec: Spec) -> Any:
        """Shapes and types of a result, for restoring one."""

        def make() -> Any:
            frozen = srpo.Frozen(None, None, None)  # type: ignore[arg-type]  # A fresh actor reads neither of them.
            return self.result(self.init(jax.random.key(0), spec, self.config(settings), self.hyper(settings), frozen))

        return jax.eval_shape(make)


@functools.lru_cache
def _sampler(action_size: int, steps: int) -> Act:
    """One function object per sampler, so that acting compiles once."""

    def act(model: behavior.Model, observations: Array, key: Array) -> Array:
        return behavior.act(model, observations, key, action_size, steps)

    return act


def _policy_act(policy: iql.Policy, observations: Array, key: Array) -> Array:
    del key
    return policy.act(observations)


def _critic_result(state: iql.State) -> dict[str, Any]:
    return {"critic": state.critic, "value": state.value.params, "policy": state.policy}


BEHAVIOR = Stage(
    name="behavior",
    algorithm="bc",
    version=1,
    init=behavior.init,
    update=behavior.update,
    config=settings_lib.behavior_config,
    hyper=settings_lib.behavior_hyper,
    result=lambda state: state.model,
    policy=lambda result: result,
    act=lambda settings, spec: _sampler(spec.action_size, settings.sampler_steps),
)

CRITIC = Stage(
    name="critic",
    algorithm="iql",
    version=1,
    init=iql.init,
    update=iql.update,
    config=settings_lib.critic_config,
    hyper=settings_lib.critic_hyper,
    result=_critic_result,
    policy=lambda result: result["policy"],
    act=lambda settings, spec: _policy_act,
    evaluation_interval="critic_evaluation_interval",
)

POLICY = Stage(
    name="policy",
    algorithm="srpo",
    version=1,
    init=srpo.init,
    update=srpo.update,
    config=settings_lib.policy_config,
    hyper=settings_lib.policy_hyper,
    result=lambda state: state.policy,
    policy=lambda result: result,
    act=lambda settings, spec: _policy_act,
    needs=("behavior", "critic"),
    evaluation_interval="policy_evaluation_interval",
)

STAGES: dict[StageName, Stage] = {stage.name: stage for stage in (BEHAVIOR, CRITIC, POLICY)}


def frozen_of(settings: Settings, results: dict[StageName, Any]) -> Any:
    """What the policy stage takes from the results of the earlier ones; nothing for the stages that need none."""
    if not results:
        return jnp.zeros(())
    critic = results["critic"]
    start = critic["policy"].params if settings.policy_start == "iql" else None
    return srpo.Frozen(results["behavior"], critic["critic"], start)
