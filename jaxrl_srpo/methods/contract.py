"""What a method is.

A method is one file: its settings, `State`, `init`, named losses, `update` and `act` as pure functions of one member,
and at its end the `Stage`s that it trains and a `METHOD`. It knows nothing of vmap, meshes, training loops,
checkpoints, flags or tables: all of these follow from what is declared here.

Functions declare the arguments that they take, by these names:
  init      key, spec, settings, frozen                 -> state
  update    state, batch, key, settings, frozen, data, step -> (state, metrics), scalars, `loss` among them; `data` are
                                                           all `data.table.Transitions` of the member's dataset, `step`
                                                           the number of the update, which all members share: a
                                                           `lax.cond` on it runs one branch for all of them
  frozen    results, settings, values, spec             -> what `init` and `update` get of earlier stages; `values` are
                                                           the settings of all stages by flag
  result    state                                       -> what is kept of a finished stage
  policy    result, settings, spec                      -> what acts, a pytree
  act       policy, observations [B, observation_size], key -> actions [B, action_size] in [-1, 1]
  explore   state, observations, key, settings          -> actions while it learns online
"""

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl_srpo.data.table import COLUMNS
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.settings import (
    DataSettings,
    EvaluationSettings,
    OnlineSettings,
    RewardSettings,
    Setting,
    Values,
    declared,
    fields_of,
    read,
    with_arrays,
)
from jaxrl_srpo.nn import policies
from jaxrl_srpo.population.member import call
from jaxrl_srpo.types import Spec

Function = Callable[..., Any]


def same(result: Any) -> Any:
    """The identity, for stages whose result is their state or whose policy is their result."""
    return result


def unchanged(state: Any) -> tuple[Any, dict[str, Any]]:
    """The update of stages that only combine earlier results; they have no steps, so it is never run."""
    return state, {}


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One stage of a method: what a population trains from start to end, and the policy that it is judged by.

    Attributes:
      name: of the stage, in files and on the progress bar.
      algorithm: word for its policy in tables, `load_policy` and `evaluations.csv`.
      label: what tables print for that policy.
      settings: a class of settings, see `methods.settings`, with `batch_size` and `steps` (of an online stage
        `online_steps`); `evaluation_interval` asks for evaluations while it trains.
      init: fresh state.
      update: one update. Left out, the stage has no steps: `init` makes all of its result out of earlier ones.
      result: what is kept of a finished state; a pytree. All of the state by default.
      policy: what acts, made of a result; a pytree. The result itself by default; None for a stage that does not act,
        which is not evaluated either.
      act: how it acts; by default `policy.act(observations, key)`.
      needs: earlier stages whose results it uses.
      frozen: what `init` and `update` get of the results, a mapping by the names of `needs`.
      adapt: changes the settings before the program gets them, as where an online stage reuses an offline one's.
      learns_values: whether it reads rewards or terminals, so that they and their transform are part of its address;
        tasks on the same data share the result of a stage that does not.
      explore: how it acts while it learns online; None for a stage that learns from the dataset alone.
      warmup_steps: setting with the environment steps before an online stage learns.
      uses_data: whether the replay buffer of an online stage starts as the dataset.
      follows: offline stage whose learning an online stage continues; None from scratch.
      cloning: the cloning baseline that its learning curve is compared with.
      stream: number of its random stream; by default it follows from the name.
      version: raised whenever its code gives other numbers, so that older results are not taken for its own.
      metrics: what each scalar of `update` means, in one line.
      columns: what its batches hold beside the transitions, names of `data.table.COLUMNS`.
      per_transition: whether its state or result has something for each transition or episode of the dataset, whose
        numbers `spec` then tells.
      title: what pictures of its losses call it; the label by default.
    """

    name: str
    algorithm: str
    label: str
    settings: type
    init: Function
    update: Function = unchanged
    result: Function = same
    policy: Function | None = same
    act: Function = policies.act
    needs: tuple["Stage", ...] = ()
    frozen: Function | None = None
    adapt: Callable[[Any], Any] = same
    learns_values: bool = True
    explore: Function | None = None
    warmup_steps: str = "online_warmup_steps"
    uses_data: bool = True
    follows: "Stage | None" = None
    cloning: "Stage | None" = None
    stream: int = -1
    version: int = 1
    metrics: Mapping[str, str] = dataclasses.field(default_factory=dict)
    columns: tuple[str, ...] = ()
    per_transition: bool = False
    title: str = ""

    def __post_init__(self) -> None:
        """Gives a stage without a number the random stream of its name."""
        if self.stream < 0:
            # Beyond the small numbers of the stages that have one.
            object.__setattr__(self, "stream", zlib.crc32(self.name.encode()) | 2**31)

    @property
    def online(self) -> bool:
        """Whether it learns in the environment."""
        return self.explore is not None

    def spec(self, spec: Spec) -> Spec:
        """The sizes of a problem as its functions and its transition table have them."""
        own = spec if self.per_transition else spec._replace(transitions=0, episodes=0)
        return own._replace(columns=self.columns)

    def sizes(self, spec: Spec) -> tuple[Spec, ...]:
        """What members of one population have in common: its sizes, and those of the results that it gets."""
        return (self.spec(spec), *itertools.chain(*(stage.sizes(spec) for stage in self.needs)))

    @property
    def acts(self) -> bool:
        """Whether it gives a policy."""
        return self.policy is not None

    @property
    def learns(self) -> bool:
        """Whether it has updates; one without only combines earlier results."""
        return self.update is not unchanged

    def read(self, values: Mapping[str, Any]) -> Any:
        """Its settings out of a flat mapping, as the program gets them."""
        return self.adapt(read(self.settings, values))

    def steps(self, values: Mapping[str, Any]) -> int:
        """Number of updates, or of environment steps of an online stage; 0 of one that does not learn."""
        own: Any = read(self.settings, values)
        if not self.learns:
            return 0
        return own.online_steps if self.online else own.steps

    def interval(self, values: Mapping[str, Any]) -> int:
        """Steps between evaluations; all of them for a stage that is evaluated at its end."""
        own: Any = read(self.settings, values)
        if self.online:
            return own.online_evaluation_interval
        return getattr(own, "evaluation_interval", self.steps(values))

    def seed(self, values: Mapping[str, Any], seed: int) -> int:
        """The seed of its random numbers for a member of a seed: seeds take turns where its settings have `seeds`."""
        shared: int = getattr(read(self.settings, values), "seeds", 0)
        return seed % shared if shared else seed

    def own_settings(self) -> dict[str, Setting]:
        """The settings that are part of its address: those that no earlier stage it needs has in its own."""
        earlier = {flag for stage in self.needs for flag in stage.reach()}
        found = declared(self.settings, *([RewardSettings] if self.learns_values else []))
        own = {flag: one for flag, one in found.items() if flag not in earlier and not one.protocol}
        return own | declared(DataSettings)

    def reach(self) -> set[str]:
        """All settings that determine its result."""
        return set(self.own_settings()).union(*(stage.reach() for stage in self.needs))

    def make_frozen(self, values: Mapping[str, Any], results: Mapping[str, Any], spec: Spec) -> Any:
        """What `init` and `update` get of earlier results."""
        if self.frozen is None:
            return jnp.zeros(())
        return call(self.frozen, results=results, settings=self.read(values), values=values, spec=spec)

    def make_policy(self, values: Mapping[str, Any], spec: Spec, result: Any) -> Any:
        """What acts, of a result; leading axes are kept."""
        assert self.policy is not None
        return call(self.policy, result=result, settings=self.read(values), spec=self.spec(spec))

    def template(self, values: Mapping[str, Any], spec: Spec) -> Any:
        """Shapes and types of a result, for restoring one."""
        settings = self.read(values)

        def make(earlier: Mapping[str, Any]) -> Any:
            frozen = self.make_frozen(values, earlier, spec)
            own = with_arrays(settings)
            state = call(self.init, key=jax.random.key(0), spec=self.spec(spec), settings=own, frozen=frozen)
            return self.result(state)

        return jax.eval_shape(make, {stage.name: stage.template(values, spec) for stage in self.needs})

    def describe(self) -> dict[str, Any]:
        """What `sweep.json` keeps, so that reports need no method's code."""
        return {
            "name": self.name,
            "algorithm": self.algorithm,
            "label": self.label,
            "title": self.title or self.label,
            "online": self.online,
            "follows": self.follows.algorithm if self.follows else "",
            "cloning": self.cloning.algorithm if self.cloning else "",
            "curve": not self.online and any(field.name == "evaluation_interval" for field in fields_of(self.settings)),
            "acts": self.acts,
            "metrics": dict(self.metrics),
        }


@dataclasses.dataclass(frozen=True)
class Preset:
    """Values of settings for a dataset.

    Attributes:
      source: where they come from.
      values: gives the values by flag for the name and the family of a dataset.
      note: gives a line to tell the user about a dataset, or "".
    """

    source: str
    values: Callable[[str, str], Mapping[str, Any]]
    note: Callable[[str, str], str] = lambda dataset, family: ""


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """A method: what `--algorithm` names.

    Attributes:
      name: of the method.
      source: the paper, and the code if it differs.
      stages: what it trains on the dataset, in order; those that give baselines among them.
      presets: by name; the first is the default.
      online: the stage that goes on in the environment where `--online_steps` asks for it; None if it cannot.
      title: what the help calls its settings.
    """

    name: str
    source: str
    stages: tuple[Stage, ...]
    presets: Mapping[str, Preset]
    online: Stage | None = None
    title: str = ""

    def stages_of(self, values: Mapping[str, Any]) -> list[Stage]:
        """What its members train, in order."""
        goes_on = self.online is not None and values.get("online_steps", 0) > 0
        return [*self.stages, *([self.online] if goes_on and self.online else [])]

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """Its stages, the online one last."""
        return (*self.stages, *([self.online] if self.online else []))

    def settings(self) -> dict[str, Setting]:
        """All its settings by flag: those that all methods have, then those of its stages."""
        classes = [stage.settings for stage in self.all_stages]
        online = [OnlineSettings] if self.online else []
        return declared(DataSettings, RewardSettings, EvaluationSettings, *classes, *online)

    def preset(self, name: str, dataset: str, family: str) -> dict[str, Any]:
        """The values that a preset gives a dataset; settings that it leaves out stay at their defaults.

        Raises:
          UserError: the method has no such preset.
        """
        if name not in self.presets:
            raise UserError(
                f"--preset={name}: {self.name} has none of this name; choose one of {', '.join(self.presets)}"
            )
        known = self.settings()
        return {flag: value for flag, value in self.presets[name].values(dataset, family).items() if flag in known}


# The first columns of metrics.csv.
_NAMING = {"stage", "dataset", "seed", "setting", "beta", "step", "updates_per_second", "check"}


def check_method(method: Any) -> Method:
    """A method of a user's own, after a look at what it declares.

    Raises:
      UserError: it is no `Method`, or a part of it cannot work.
    """
    if not isinstance(method, Method):
        raise UserError(f"--algorithm: {method!r} is no jaxrl_srpo.methods.contract.Method")
    if not method.presets:
        raise UserError(f"--algorithm={method.name}: it has no preset; give at least one, named quick")
    for stage in method.all_stages:
        for name in ("batch_size", "online_steps" if stage.online else "steps"):
            if stage.learns and not hasattr(stage.settings, name):
                raise UserError(f"--algorithm={method.name}: the settings of stage {stage.name} have no {name}")
        if unknown := sorted(set(stage.columns) - set(COLUMNS)):
            raise UserError(
                f"--algorithm={method.name}: stage {stage.name} asks for the column {unknown[0]}; "
                f"there are {', '.join(COLUMNS)}"
            )
        if taken := sorted(_NAMING & set(stage.metrics)):
            raise UserError(f"--algorithm={method.name}: a metric may not be called {taken[0]}; give it another name")
    method.settings()
    return method


def merged_settings(methods: Sequence[Method]) -> dict[str, Setting]:
    """The settings of several methods by flag.

    Raises:
      UserError: two of them declare different settings under one name.
    """
    classes = [stage.settings for method in methods for stage in method.all_stages]
    shared: list[type] = [DataSettings, RewardSettings, EvaluationSettings, OnlineSettings]
    return declared(*shared, *classes)


def agreeing(methods: Sequence[Method], preset: str, datasets: Sequence[tuple[str, str]]) -> list[list[Method]]:
    """Methods in groups that can share a run, because their presets agree.

    Presets may differ in what all methods of a run have in common: the transform of rewards, normalized observations,
    the discount.

    Args:
      methods: in the order of the groups.
      preset: that each of them has.
      datasets: names and families.

    Raises:
      UserError: a method has no such preset.
    """
    values = {method: [_learned_by(method, preset, *dataset) for dataset in datasets] for method in methods}

    def agree(one: Method, other: Method) -> bool:
        return all(
            mine[flag] == theirs[flag]
            for mine, theirs in zip(values[one], values[other], strict=True)
            for flag in mine.keys() & theirs.keys()
        )

    groups: list[list[Method]] = []
    for method in methods:
        fitting = (group for group in groups if all(agree(method, other) for other in group))
        if (group := next(fitting, None)) is not None:
            group.append(method)
        else:
            groups.append([method])
    return groups


def _learned_by(method: Method, preset: str, dataset: str, family: str) -> dict[str, Any]:
    """What a preset gives, and the defaults by which the method's stages learn where it gives nothing."""
    settings = declared(DataSettings, RewardSettings, *(stage.settings for stage in method.stages))
    defaults = {flag: one.default for flag, one in settings.items() if not one.protocol}
    return defaults | method.preset(preset, dataset, family)


def preset_values(methods: Sequence[Method], name: str, dataset: str, family: str, given: Sequence[str] = ()) -> Values:
    """What a preset gives a dataset, for all settings of some methods.

    Args:
      methods: the methods; a setting that they share gets one value.
      name: of the preset.
      dataset: name of the dataset.
      family: of the dataset.
      given: settings whose value is given anyway.

    Raises:
      UserError: a method has no such preset, or two give one setting different values.
    """
    settings = merged_settings(methods)
    values: dict[str, Any] = {}
    for method in methods:
        own = method.preset(name, dataset, family)
        for flag, value in own.items():
            if values.setdefault(flag, value) != value and flag not in given:
                raise UserError(
                    f"--algorithm: preset {name} gives {flag} different values for {method.name} and another method; "
                    f"train them in runs of their own, or give --{flag}"
                )
    return Values({flag: values.get(flag, one.default) for flag, one in settings.items()})
