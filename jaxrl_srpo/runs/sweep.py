"""A sweep: datasets x seeds x hyperparameters as members, and how they share results and programs.

The result of a stage is addressed by what determines it: the fingerprint of what it reads of the dataset, the seed,
the stage's own settings and code version, the addresses of the earlier stages it uses, and the environment if it learns
online. Members that differ in beta alone therefore share behavior model and critic, tasks on the same data share the
behavior model, and a sweep that is extended or killed trains only what is missing.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_srpo import methods as methods_lib
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.data.packing import needs_order
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Method, Stage, merged_settings, preset_values
from jaxrl_srpo.methods.settings import Setting, Values, fields_of, read, scale_budget, text_of
from jaxrl_srpo.report.records import Result
from jaxrl_srpo.types import Spec

MOST_MEMBERS = 100_000
"""Of one sweep: far more than any machine trains, and few enough to be listed."""

NAMING_COLUMNS = ("stage", "dataset", "seed", "setting", "beta")
"""The columns that name a member in `metrics.csv` and `evaluations.csv`."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One training run: a dataset, a seed and one set of numbers.

    Attributes:
      dataset: the dataset's name in tables.
      fingerprint: of its transitions.
      spec: sizes of the problem.
      seed: of all random numbers, but for stages that seeds share.
      settings: concrete values by flag.
      method: what it trains.
      setting: the swept settings other than beta, as `expectile=0.9`, ';' between them; empty if there are none.
      environment: where its policies act and learn online; None if unknown.
      recorded: addresses by stage under which a run directory of another version keeps its results.
      inputs_fingerprint: of its transitions without rewards and terminals, which tasks of equal data share; empty for
        data of their own.
    """

    dataset: str
    fingerprint: str
    spec: Spec
    seed: int
    settings: Values
    method: Method
    setting: str = ""
    environment: EnvironmentSpec | None = dataclasses.field(default=None, compare=False)
    recorded: Values = dataclasses.field(default=Values({}), compare=False)
    inputs_fingerprint: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """For pickles; a method of this package by its name, for functions of methods are no values."""
        method = self.method.name if self.method in methods_lib.METHODS else self.method
        return self.__dict__ | {"method": method}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Undoes `__getstate__`."""
        self.__dict__.update(state | {"method": methods_lib.find_method(state["method"])})

    @property
    def algorithm(self) -> str:
        """Name of its method."""
        return self.method.name

    @property
    def stages(self) -> list[Stage]:
        """What it trains, in order."""
        return self.method.stages_of(self.settings)

    def seed_of(self, stage: Stage) -> int:
        """The seed of a stage's random numbers, which members may share; see `Stage.seed`."""
        return stage.seed(self.settings, self.seed)

    def address(self, stage: Stage) -> str:
        """Name of the stage's result; equal for members whose stage would compute the same."""
        if stage.name in self.recorded:
            return str(self.recorded[stage.name])
        payload = {
            "stage": stage.name,
            "version": stage.version,
            "fingerprint": self._fingerprint_for(stage),
            "seed": self.seed_of(stage),
            "settings": {
                flag: self.settings[flag]
                for flag, setting in stage.own_settings().items()
                if not (setting.added and self.settings[flag] == setting.default)
            },
            "needs": [self.address(earlier) for earlier in stage.needs],
        }
        if stage.online and self.environment is not None:
            payload["environment"] = self.environment.to_json()
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:16]

    def _fingerprint_for(self, stage: Stage) -> str:
        """Fingerprint of what the stage reads of the data."""
        # Which rows it gets follows from returns, too, where trajectories are weighted.
        reads_rewards = stage.learns_values or self.settings["trajectory_weighting"] != 0.0
        return self.fingerprint if reads_rewards else self.inputs_fingerprint or self.fingerprint

    def row(self, stage: Stage) -> dict[str, Any]:
        """The columns that name this member in `metrics.csv` and `evaluations.csv`."""
        reached = stage.reach()
        beta = text_of(self.settings["beta"]) if "beta" in reached else ""
        setting = ";".join(part for part in self.setting.split(";") if part.split("=")[0] in reached)
        values = (stage.name, self.dataset, self.seed_of(stage), setting, beta)
        return dict(zip(NAMING_COLUMNS, values, strict=True))

    def result(self, stage: Stage) -> Result:
        """The same as a key, as the readers of both files make it of a row."""
        row = self.row(stage)
        beta = float(row["beta"]) if row["beta"] else None
        return Result(row["stage"], row["dataset"], row["seed"], row["setting"], beta)

    def name(self, stage: Stage) -> str:
        """What messages call it, for instance `srpo pointmaze/umaze seed=0 beta=0.1`."""
        row = self.row(stage)
        beta = f"beta={row['beta']}" if row["beta"] else ""
        parts = (stage.algorithm, row["dataset"], f"seed={row['seed']}", beta, *row["setting"].split(";"))
        return " ".join(part for part in parts if part)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What to train.

    Attributes:
      datasets: names or paths.
      seeds: one member per seed.
      preset: gives each dataset its settings; every method has presets of its own.
      overrides: settings that replace the preset's; a sequence of several values of a swept setting makes members of
        all of them.
      budget: share of the preset's updates, see `settings.scale_budget`; `overrides` are taken as they are.
      algorithms: names of methods, methods of a user's own as `package.module:METHOD`, or methods; members of each.
        `all` stands for every method of this package that has the preset and can learn under the overrides.
    """

    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str = "quick"
    overrides: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    budget: float = 1.0
    algorithms: tuple[str | Method, ...] = ("srpo",)
    methods: tuple[Method, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
          UserError: saying what.
        """
        if not self.datasets:
            raise UserError("--datasets: name at least one dataset, for instance pointmaze/umaze")
        if not self.seeds:
            raise UserError("--seeds: name at least one seed, for instance 0:4")
        if not self.algorithms:
            raise UserError("--algorithm: name at least one, for instance srpo")
        self._check_seeds()
        object.__setattr__(self, "methods", self._find_methods())
        names = tuple(method.name for method in self.methods)
        given = {"datasets": self.datasets, "seeds": self.seeds, "algorithm": names}
        for what, values in (*given.items(), *self.overrides.items()):
            if len(set(values)) < len(values):
                raise UserError(f"--{what}: a value is given twice in {', '.join(map(str, values))}")
        methods_lib.stages_in_order(self.methods)
        count = math.prod(map(len, (self.datasets, self.seeds, self.methods, *self.overrides.values())))
        if count > MOST_MEMBERS:
            raise UserError(
                f"--seeds, --datasets and settings of several values make {count} members; at most {MOST_MEMBERS}"
            )
        self._check_overrides()

    def _find_methods(self) -> tuple[Method, ...]:
        if methods_lib.ALL not in self.algorithms:
            return tuple(methods_lib.find_method(name) for name in self.algorithms)
        every = [one for one in methods_lib.every_method(self.preset) if not self._left_out(one)]
        if not every:
            raise UserError(f"--algorithm=all: no method has --preset={self.preset} and can learn by what is given")
        named = [methods_lib.find_method(name) for name in self.algorithms if name != methods_lib.ALL]
        return tuple(dict.fromkeys([*every, *named]))

    def _left_out(self, method: Method) -> str:
        """Why `all` leaves a method out; empty if it does not."""
        if method.online is None and any(self.overrides.get("online_steps", ())):
            return f"{method.name}: left out, it does not learn online"
        if any(needs_order(stage.columns) for stage in method.stages) and any(
            self.overrides.get("trajectory_weighting", ())
        ):
            return f"{method.name}: left out, it learns from the order of episodes, which --trajectory_weighting undoes"
        return ""

    def asked(self) -> dict[str, Any]:
        """The arguments of `train` that make it, for a JSON file."""
        return {
            "datasets": list(self.datasets),
            "seeds": list(self.seeds),
            "algorithm": [one if isinstance(one, str) else one.name for one in self.algorithms],
            "preset": self.preset,
            "budget": self.budget,
            **{name: list(values) for name, values in self._converted().items()},
        }

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings of all its methods by flag."""
        return merged_settings(self.methods)

    def settings_of(self, dataset: Dataset) -> list[tuple[str, Values]]:
        """All combinations of the swept settings for a dataset, each with its label."""
        base = preset_values(self.methods, self.preset, dataset.name, dataset.family, tuple(self.overrides))
        base = scale_budget(base, self.settings, self.budget)
        converted = self._converted()
        combinations = []
        for values in itertools.product(*converted.values()):
            chosen = dict(zip(converted, values, strict=True))
            varied = [name for name in chosen if len(converted[name]) > 1 and name != "beta"]
            label = ";".join(f"{name}={text_of(chosen[name])}" for name in varied)
            combinations.append((label, base.replace(**chosen)))
        return combinations

    def members(self, datasets: Sequence[Dataset]) -> list[Member]:
        """Every member, datasets outermost and hyperparameters innermost.

        Combinations that differ in nothing that their method reads make one member.

        Raises:
          UserError: for a preset that a method does not have.
        """
        members = [
            Member(
                dataset=dataset.name,
                fingerprint=dataset.fingerprint,
                spec=Spec(dataset.observation_size, dataset.action_size, dataset.size, episodes=dataset.episodes),
                seed=seed,
                settings=Values({flag: settings[flag] for flag in method.settings()}),
                method=method,
                setting=label,
                environment=dataset.environment,
                inputs_fingerprint=dataset.inputs_fingerprint,
            )
            for dataset in datasets
            for seed in self.seeds
            for method in self.methods
            for label, settings in self.settings_of(dataset)
        ]
        different: dict[Any, Member] = {}
        for member in members:
            addresses = tuple(member.address(stage) for stage in member.stages)
            different.setdefault((member.dataset, member.algorithm, *addresses), member)
        return list(different.values())

    def notes(self, datasets: Sequence[Dataset]) -> list[str]:
        """What `all` leaves out, and what the presets tell about datasets unless an override settles it."""
        everything = methods_lib.every_method(self.preset) if methods_lib.ALL in self.algorithms else ()
        notes = [why for method in everything if (why := self._left_out(method))]
        for dataset in datasets:
            for method in self.methods:
                preset = method.presets.get(self.preset)
                note = preset.note(dataset.name, dataset.family) if preset else ""
                if note and not any(f"--{name} " in note for name in self.overrides):
                    notes.append(note)
        return notes

    def _check_seeds(self) -> None:
        """Makes Python's whole numbers of NumPy's, and refuses those that no key can be made of."""
        for seed in self.seeds:
            if not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < 2**31:
                raise UserError(f"--seeds: {seed!r} is no whole number from 0 to 2^31 - 1")
        object.__setattr__(self, "seeds", tuple(map(operator.index, self.seeds)))

    def _known(self) -> dict[str, Setting]:
        """The settings that may be given: also those of other methods, which its own do not read."""
        return merged_settings(methods_lib.METHODS) | self.settings

    def _converted(self) -> dict[str, tuple[Any, ...]]:
        settings = self._known()
        return {name: tuple(settings[name].convert(one) for one in values) for name, values in self.overrides.items()}

    def _check_overrides(self) -> None:
        settings = self._known()
        for name, values in self.overrides.items():
            if name not in settings:
                raise UserError(f"{name}: no such setting; `jaxrl-srpo train --helpfull` lists them")
            if len(values) > 1 and not settings[name].swept:
                several = ", ".join(flag for flag, one in settings.items() if one.swept)
                raise UserError(f"--{name}: takes one value; settings that take several are {several}")
        converted = self._converted()
        for method in self.methods:
            if not method.stages and not any(steps > 0 for steps in converted.get("online_steps", (0,))):
                raise UserError(f"--algorithm={method.name}: learns online alone; give --online_steps")
            if method.online is None and any(steps > 0 for steps in converted.get("online_steps", (0,))):
                raise UserError(f"--online_steps: {method.name} does not learn online")
            for stage in method.all_stages:
                _check_combinations(stage, converted)


def _check_combinations(stage: Stage, overrides: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuses values that do not go together, in every combination of the settings that the stage reads."""
    if not hasattr(stage.settings, "check"):
        return
    own = [field.setting.flag for field in fields_of(stage.settings) if field.setting.flag in overrides]
    for values in itertools.product(*(overrides[flag] for flag in own)):
        read(stage.settings, dict(zip(own, values, strict=True))).check()


def unique(members: Sequence[Member], stage: Stage) -> list[Member]:
    """One member per distinct result of a stage and dataset, in order, of those that train it.

    Datasets of equal transitions are of several tasks, each evaluated in its own.
    """
    own = [member for member in members if stage in member.stages]
    return list({(member.dataset, member.address(stage)): member for member in reversed(own)}.values())[::-1]


def by_training(members: Sequence[Member], stage: Stage) -> dict[Member, list[Member]]:
    """The members to train, in order, each with the members of other tasks that its result and its schedule serve."""
    groups: dict[Any, list[Member]] = {}
    for member in unique(members, stage):
        groups.setdefault((member.address(stage), _program(member, stage)), []).append(member)
    return {first: others for first, *others in groups.values()}


def stages_of(members: Sequence[Member]) -> list[Stage]:
    """The stages of some members in the order of training."""
    own = {stage.name for member in members for stage in member.stages}
    methods = list(dict.fromkeys(member.method for member in members))
    return [stage for stage in methods_lib.stages_in_order(methods) if stage.name in own]


def populations(members: Sequence[Member], stage: Stage, size: int = 0) -> list[list[Member]]:
    """Members of equal shapes and budgets, which share a compiled program; at most `size` of them together if given."""
    groups: dict[Any, list[Member]] = {}
    for member in members:
        groups.setdefault(_program(member, stage), []).append(member)
    return [part for group in groups.values() for part in _parts(shared_groups(group, stage), size)]


def _program(member: Member, stage: Stage) -> Any:
    """What members of one population have in common: everything but the numbers that a sweep may vary."""
    values = member.settings
    static = tuple(
        values[field.setting.flag]
        for each in (stage, *_needed(stage))
        for field in fields_of(each.settings)
        if not field.setting.swept and not (field.setting.protocol and each is not stage)
    )
    schedule = (stage.steps(values), stage.interval(values), values["log_interval"], values["episodes"])
    extra = (values[stage.warmup_steps],) if stage.online else ()
    return stage.sizes(member.spec), static, schedule, values["precision"], extra


def _needed(stage: Stage) -> list[Stage]:
    return [one for earlier in stage.needs for one in (*_needed(earlier), earlier)]


def _parts(groups: Sequence[list[Member]], size: int) -> list[list[Member]]:
    """Populations of at most `size` members (0: of all); members that share earlier results part last."""
    size = size or sum(map(len, groups))
    together = max(1, size // len(groups[0]))
    joined = [list(itertools.chain(*groups[i : i + together])) for i in range(0, len(groups), together)]
    return [part[i : i + size] for part in joined for i in range(0, len(part), size)]


def shared_groups(members: Sequence[Member], stage: Stage) -> list[list[Member]]:
    """Members by the earlier results they share; groups of one where their sizes would differ."""
    if not stage.needs:
        return [[member] for member in members]
    groups: dict[Any, list[Member]] = {}
    for member in members:
        needs = tuple(member.address(earlier) for earlier in stage.needs)
        groups.setdefault(needs, []).append(member)
    if len({len(group) for group in groups.values()}) > 1:
        return [[member] for member in members]
    return list(groups.values())
