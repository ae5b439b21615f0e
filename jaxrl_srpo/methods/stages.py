"""The stages of every algorithm as data: what each trains, needs and keeps, and the policy it is judged by."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_srpo.methods import awac, behavior, iql, sac, srpo
from jaxrl_srpo.methods import settings as settings_lib
from jaxrl_srpo.methods.settings import FIELDS, Settings, StageName
from jaxrl_srpo.population.agent import Agent, Explore
from jaxrl_srpo.population.offline import Init, Update
from jaxrl_srpo.population.vectorize import Act
from jaxrl_srpo.types import Array, Spec

Results = Mapping[StageName, Any]


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
      frozen: what `init` and `update` get of those results; nothing by default.
      explore: how it acts while it learns online; None for stages that learn from the dataset alone.
      uses_data: whether its replay buffer starts as the dataset, if it learns online.
      shares: groups of settings that determine its result besides its own and those of the data.
      budget: setting with the number of updates; `<name>_steps` by default.
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
    shares: tuple[str, ...] = ()
    budget: str | None = None
    evaluation_interval: str | None = None
    frozen: Callable[[Settings, Results], Any] = lambda settings, results: jnp.zeros(())
    explore: Callable[[Settings], Explore] | None = None
    uses_data: bool = True

    def steps(self, settings: Settings) -> int:
        """Number of updates."""
        return getattr(settings, self.budget or f"{self.name}_steps")

    def interval(self, settings: Settings) -> int:
        """Updates between evaluations."""
        return getattr(settings, self.evaluation_interval) if self.evaluation_interval else self.steps(settings)

    def own_settings(self, settings: Settings) -> dict[str, Any]:
        """The settings that belong to this stage, to others that it shares, or to the data that all learn from."""
        own = (self.name, "data", *self.shares)
        return {name: getattr(settings, name) for name, field in FIELDS.items() if field.metadata["stage"] in own}

    def template(self, settings: Settings, spec: Spec) -> Any:
        """Shapes and types of a result, for restoring one."""

        def make(earlier: Results) -> Any:
            frozen = self.frozen(settings, earlier)
            return self.result(self.init(jax.random.key(0), spec, self.config(settings), self.hyper(settings), frozen))

        return jax.eval_shape(make, {name: STAGES[name].template(settings, spec) for name in self.needs})

    def agent(self, settings: Settings, spec: Spec) -> Agent:
        """What learns online."""
        assert self.explore is not None
        return Agent(
            name=self.name,
            init=self.init,
            update=self.update,
            explore=self.explore(settings),
            policy=lambda state: self.policy(self.result(state)),
            act=self.act(settings, spec),
        )


@functools.lru_cache
def _sampler(action_size: int, steps: int) -> Act:
    """One function object per sampler, so that acting compiles once."""

    def act(model: behavior.Model, observations: Array, key: Array) -> Array:
        return behavior.act(model, observations, key, action_size, steps)

    return act


def _policy_act(policy: iql.Policy, observations: Array, key: Array) -> Array:
    del key
    return policy.act(observations)


def _gaussian_act(policy: awac.Policy, observations: Array, key: Array) -> Array:
    del key
    return policy.act(observations)


def _continue(key: Array, spec: Spec, config: Any, hyper: Any, frozen: Any) -> Any:
    """`init` of a stage that goes on from the whole state of an earlier one."""
    del key, spec, config, hyper
    return frozen


def _same(result: Any) -> Any:
    return result


def _own_policy(result: Any) -> Any:
    return result.policy


def _critic_result(state: iql.State) -> dict[str, Any]:
    return {"critic": state.critic, "value": state.value.params, "policy": state.policy}


def _srpo_frozen(settings: Settings, results: Results) -> srpo.Frozen:
    critic = results["critic"]
    start = critic["policy"].params if settings.policy_start == "iql" else None
    return srpo.Frozen(results["behavior"], critic["critic"], start)


def _iql_start(result: Mapping[str, Any]) -> iql.Start:
    return iql.Start(result["critic"].params, result["value"], result["policy"].params)


BEHAVIOR = Stage(
    name="behavior",
    algorithm="bc",
    version=1,
    init=behavior.init,
    update=behavior.update,
    config=settings_lib.behavior_config,
    hyper=settings_lib.behavior_hyper,
    result=lambda state: state.model,
    policy=_same,
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
    shares=("return",),
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
    policy=_same,
    act=lambda settings, spec: _policy_act,
    needs=("behavior", "critic"),
    evaluation_interval="policy_evaluation_interval",
    frozen=_srpo_frozen,
)

CLONING = Stage(
    name="cloning",
    algorithm="cloning",
    version=1,
    init=awac.init,
    update=awac.clone,
    config=settings_lib.cloning_config,
    hyper=settings_lib.awac_hyper,
    result=lambda state: state.policy,
    policy=_same,
    act=lambda settings, spec: _gaussian_act,
    budget="offline_steps",
    evaluation_interval="offline_evaluation_interval",
)

AWAC = Stage(
    name="awac",
    algorithm="awac",
    version=1,
    init=awac.init,
    update=awac.update,
    config=settings_lib.awac_config,
    hyper=settings_lib.awac_hyper,
    # All of it, moments of Adam included, so that learning goes on online as if it had never stopped.
    result=_same,
    policy=_own_policy,
    act=lambda settings, spec: _gaussian_act,
    shares=("cloning", "return"),
    budget="offline_steps",
    evaluation_interval="offline_evaluation_interval",
)

SAC_OFFLINE = Stage(
    name="sac_offline",
    algorithm="sac_offline",
    version=1,
    init=sac.init,
    update=sac.update,
    config=settings_lib.sac_config,
    hyper=settings_lib.sac_hyper,
    result=_same,
    policy=_own_policy,
    act=lambda settings, spec: sac.act,
    shares=("return",),
    budget="offline_steps",
    evaluation_interval="offline_evaluation_interval",
)

AWAC_ONLINE = Stage(
    name="awac_online",
    algorithm="awac_online",
    version=1,
    init=_continue,
    update=awac.update,
    config=lambda settings: settings_lib.awac_config(settings)._replace(batch_size=settings.online_batch_size),
    hyper=settings_lib.awac_hyper,
    result=_same,
    policy=_own_policy,
    act=lambda settings, spec: _gaussian_act,
    needs=("awac",),
    shares=("online",),
    budget="online_steps",
    evaluation_interval="online_evaluation_interval",
    frozen=lambda settings, results: results["awac"],
    explore=lambda settings: awac.explore,
)

SRPO_ONLINE = dataclasses.replace(
    AWAC_ONLINE,
    name="srpo_online",
    algorithm="srpo_online",
    init=awac.init_from,
    config=settings_lib.srpo_online_config,
    needs=("critic", "policy"),
    shares=("cloning", "awac", "online"),
    frozen=lambda settings, results: awac.Start(results["policy"].params, results["critic"]["critic"].params),
)

IQL_ONLINE = Stage(
    name="iql_online",
    algorithm="iql_online",
    version=1,
    init=iql.init_from,
    update=iql.update,
    config=lambda settings: settings_lib.critic_config(settings)._replace(batch_size=settings.online_batch_size),
    # The actor's rate no longer falls.
    hyper=lambda settings: dataclasses.replace(settings_lib.critic_hyper(settings), total_steps=float("inf")),
    result=_critic_result,
    policy=lambda result: result["policy"],
    act=lambda settings, spec: _policy_act,
    needs=("critic",),
    shares=("online",),
    budget="online_steps",
    evaluation_interval="online_evaluation_interval",
    frozen=lambda settings, results: _iql_start(results["critic"]),
    explore=lambda settings: functools.partial(iql.explore, deviation=settings.exploration_noise),
)

SAC_ONLINE = dataclasses.replace(
    SAC_OFFLINE,
    name="sac_online",
    algorithm="sac_online",
    init=_continue,
    config=lambda settings: settings_lib.sac_config(settings)._replace(batch_size=settings.online_batch_size),
    needs=("sac_offline",),
    shares=("online",),
    budget="online_steps",
    evaluation_interval="online_evaluation_interval",
    frozen=lambda settings, results: results["sac_offline"],
    explore=lambda settings: sac.explore,
)

SAC = dataclasses.replace(
    SAC_ONLINE,
    name="sac",
    algorithm="sac",
    init=sac.init,
    needs=(),
    shares=("sac_offline", "return", "online"),
    frozen=BEHAVIOR.frozen,
    uses_data=False,
)

STAGES: dict[StageName, Stage] = {
    stage.name: stage
    for stage in (
        *(BEHAVIOR, CRITIC, POLICY, CLONING, AWAC, SAC_OFFLINE),
        *(SRPO_ONLINE, IQL_ONLINE, AWAC_ONLINE, SAC_ONLINE, SAC),
    )
}

ALGORITHMS: dict[str, tuple[StageName, ...]] = {
    "srpo": ("behavior", "critic", "policy"),
    "iql": ("critic",),
    "awac": ("cloning", "awac"),
    "sac": (),
    "sac-offline": ("sac_offline",),
}
"""What a command may ask for, and the stages that it trains on the dataset; those that give baselines among them."""

ONLINE: dict[str, StageName] = {
    "srpo": "srpo_online",
    "iql": "iql_online",
    "awac": "awac_online",
    "sac": "sac",
    "sac-offline": "sac_online",
}
"""The stage that goes on online where `online_steps` asks for it; SRPO's is AWAC from SRPO's actor and critic."""


def stages_of(algorithm: str, settings: Settings) -> list[Stage]:
    """What members of an algorithm train, in order."""
    online = [ONLINE[algorithm]] if settings.online_steps else []
    return [STAGES[name] for name in (*ALGORITHMS[algorithm], *online)]
