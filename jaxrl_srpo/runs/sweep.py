"""A sweep: datasets x seeds x hyperparameters as members, and how they share results and programs.

The result of a stage is addressed by what determines it: the dataset's fingerprint, the seed, the stage's own settings
and code version, the addresses of the earlier stages it uses, and the environment if it learns online. Members that
differ in beta alone therefore share behaviour and critic, and a sweep that is extended or killed trains only what is
missing.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.presets import preset
from jaxrl_srpo.methods.settings import SWEPT, Settings, StageName, override, scale_budget
from jaxrl_srpo.methods.stages import ALGORITHMS, STAGES, Stage, stages_of
from jaxrl_srpo.types import Spec

NAMING_COLUMNS = ("stage", "dataset", "seed", "setting", "beta")
"""The columns that name a member in `metrics.csv` and `evaluations.csv`."""

_LOOP = ("update_to_data", "online_warmup_steps", "sac_random_steps", "exploration_noise")


@dataclasses.dataclass(frozen=True)
class Member:
    """One training run: a dataset, a seed and one set of numbers.

    Attributes:
      dataset: the dataset's name in tables.
      fingerprint: of its transitions.
      spec: sizes of the problem.
      seed: of all random numbers.
      settings: concrete values.
      setting: the swept settings other than beta, as `expectile=0.9`, ';' between them; empty if there are none.
      algorithm: out of `ALGORITHMS`, whose stages it trains.
      environment: where its policies act and learn online; None if unknown.
    """

    dataset: str
    fingerprint: str
    spec: Spec
    seed: int
    settings: Settings
    setting: str = ""
    algorithm: str = "srpo"
    environment: EnvironmentSpec | None = dataclasses.field(default=None, compare=False)

    @property
    def stages(self) -> list[Stage]:
        """What it trains, in order."""
        return stages_of(self.algorithm, self.settings)

    def address(self, stage: Stage) -> str:
        """Name of the stage's result; equal for members whose stage would compute the same."""
        payload = {
            "stage": stage.name,
            "version": stage.version,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "settings": stage.own_settings(self.settings),
            "needs": [self.address(STAGES[name]) for name in stage.needs],
        }
        if stage.explore is not None and self.environment is not None:
            payload["environment"] = self.environment.to_json()
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:16]

    def row(self, stage: Stage) -> dict[str, Any]:
        """The columns that name this member in `metrics.csv` and `evaluations.csv`."""
        beta = f"{self.settings.beta:g}" if "beta" in reach(stage) else ""
        values = (stage.name, self.dataset, self.seed, _label(self.setting, stage), beta)
        return dict(zip(NAMING_COLUMNS, values, strict=True))

    def name(self, stage: Stage) -> str:
        """What messages and `sweep.json` call it, for instance `srpo pointmaze/umaze seed=0 beta=0.1`."""
        row = self.row(stage)
        beta = f"beta={row['beta']}" if row["beta"] else ""
        parts = (stage.algorithm, row["dataset"], f"seed={row['seed']}", beta, *row["setting"].split(";"))
        return " ".join(part for part in parts if part)


def reach(stage: Stage) -> set[str]:
    """The settings that determine the result of a stage: its own and those of the stages it needs."""
    own = set(stage.own_settings(Settings()))
    return own.union(*(reach(STAGES[name]) for name in stage.needs))


def _label(setting: str, stage: Stage) -> str:
    """Only the swept settings that reach a stage."""
    return ";".join(part for part in setting.split(";") if part.split("=")[0] in reach(stage))


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What to train.

    Attributes:
      datasets: names or paths.
      seeds: one member per seed.
      preset: out of `PRESETS`; gives each dataset its settings.
      overrides: settings that replace the preset's; a sequence of several values of a swept setting makes members of
        all of them.
      budget: share of the preset's updates, see `settings.scale_budget`; `overrides` are taken as they are.
      algorithms: out of `ALGORITHMS`; members of each.
    """

    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    preset: str = "quick"
    overrides: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    budget: float = 1.0
    algorithms: tuple[str, ...] = ("srpo",)

    def __post_init__(self) -> None:
        """Refuses what cannot be trained."""
        if not self.datasets:
            raise UserError("--datasets: name at least one dataset, for instance pointmaze/umaze")
        if not self.seeds:
            raise UserError("--seeds: name at least one seed, for instance 0:4")
        if not self.algorithms or any(name not in ALGORITHMS for name in self.algorithms):
            raise UserError(f"--algorithm={','.join(self.algorithms)}: choose from {', '.join(ALGORITHMS)}")
        given = {"datasets": self.datasets, "seeds": self.seeds, "algorithm": self.algorithms}
        for what, values in (*given.items(), *self.overrides.items()):
            if len(set(values)) < len(values):
                raise UserError(f"--{what}: a value is given twice in {', '.join(map(str, values))}")
        for name, values in self.overrides.items():
            if len(values) > 1 and name not in SWEPT:
                raise UserError(f"--{name}: takes one value; settings that take several are {', '.join(SWEPT)}")
        for values in itertools.islice(itertools.product(*self.overrides.values()), 1000):
            settings = override(scale_budget(Settings(), self.budget), dict(zip(self.overrides, values, strict=True)))
            if "sac" in self.algorithms and not settings.online_steps:
                raise UserError("--algorithm=sac: learns online alone; give --online_steps")
            if settings.time_min > settings.time_max:
                raise UserError(f"--time_min={settings.time_min}: must not be above --time_max={settings.time_max}")

    def settings_of(self, dataset: Dataset) -> list[tuple[str, Settings]]:
        """All combinations of the swept settings for a dataset, each with its label."""
        base = scale_budget(preset(self.preset, dataset.name, dataset.family), self.budget)
        combinations = []
        for values in itertools.product(*self.overrides.values()):
            chosen = dict(zip(self.overrides, values, strict=True))
            varied = [name for name in chosen if len(self.overrides[name]) > 1 and name != "beta"]
            label = ";".join(f"{name}={chosen[name]:g}" for name in varied)
            combinations.append((label, override(base, chosen)))
        return combinations

    def members(self, datasets: Sequence[Dataset]) -> list[Member]:
        """Every member, datasets outermost and hyperparameters innermost.

        Combinations that differ in nothing that their algorithm reads make one member.
        """
        members = [
            Member(
                dataset.name,
                dataset.fingerprint,
                Spec(dataset.observation_size, dataset.action_size),
                seed,
                settings,
                label,
                algorithm,
                dataset.environment,
            )
            for dataset in datasets
            for seed in self.seeds
            for algorithm in self.algorithms
            for label, settings in self.settings_of(dataset)
        ]
        different: dict[Any, Member] = {}
        for member in members:
            addresses = tuple(member.address(stage) for stage in member.stages)
            different.setdefault((member.dataset, member.algorithm, *addresses), member)
        return list(different.values())


def unique(members: Sequence[Member], stage: Stage) -> list[Member]:
    """One member per distinct result of a stage and dataset, in order, of those that train it.

    Datasets of equal transitions are of several tasks, each evaluated in its own.
    """
    own = [member for member in members if stage in member.stages]
    return list({(member.dataset, member.address(stage)): member for member in reversed(own)}.values())[::-1]


def populations(members: Sequence[Member], stage: Stage, size: int = 0) -> list[list[Member]]:
    """Members of equal shapes and budgets, which share a compiled program; at most `size` of them together if given."""
    groups: dict[Any, list[Member]] = {}
    for member in members:
        settings = member.settings
        schedule = (stage.steps(settings), stage.interval(settings), settings.log_interval, settings.episodes)
        extra: tuple[Any, ...] = (settings.precision, settings.policy_start if stage.needs else None)
        if stage.explore is not None:
            extra += tuple(getattr(settings, name) for name in _LOOP)
        groups.setdefault((member.spec, stage.config(settings), schedule, extra), []).append(member)
    return [part for group in groups.values() for part in _parts(shared_groups(group, stage), size)]


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
        needs: tuple[str, ...] = tuple(member.address(STAGES[name]) for name in stage.needs)
        groups.setdefault(needs, []).append(member)
    if len({len(group) for group in groups.values()}) > 1:
        return [[member] for member in members]
    return list(groups.values())


def results_of(member: Member, stage: Stage) -> dict[StageName, str]:
    """Addresses of the earlier results that a stage of a member uses."""
    return {name: member.address(STAGES[name]) for name in stage.needs}
