"""Settings: dataclass fields beside the code that reads them, from which flags, sweeps and addresses follow.

A method declares its settings as a class of `flax.struct` whose fields are made by `setting`. Numbers that a sweep may
vary are leaves of the pytree, so that one compiled program trains members with different values; everything else is
static. `read` makes such an object of a flat mapping from flag names to values (`Values`).
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jaxrl_srpo.data.rewards import TRANSFORMS
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.nn.precision import Precision

S = TypeVar("S")

_LARGEST_WHOLE = 2**31 - 1
_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is declared of one setting.

    Attributes:
      flag: its name on the command line and in `sweep.json`.
      default: its value unless a preset or the user gives another.
      help: one line.
      swept: whether a sweep may vary it inside one compiled program.
      choices: the words it may be; empty for any.
      minimum: smallest number allowed.
      maximum: largest number allowed.
      above: bound that it must exceed; None for none.
      below: bound that it must stay under; None for none.
      scaled: whether `--budget` multiplies it.
      protocol: whether it changes what is measured but not what is learned; it is then no part of an address.
      added: whether the stage was once released without it; at its default it is then no part of an address, so that
        older results are still found.
      owner: the class that declares it.
    """

    flag: str
    default: Any
    help: str
    swept: bool
    choices: tuple[str, ...]
    minimum: float
    maximum: float
    above: float | None
    below: float | None
    scaled: bool
    protocol: bool
    added: bool
    owner: type

    def convert(self, value: Any) -> Any:
        """`value` in the setting's type, so that 1 and 1.0 name the same results; NumPy's numbers too.

        Raises:
          UserError: it is of another type, no choice, or out of range.
        """
        converted = self._typed(value)
        self._check(converted)
        return converted

    def parse(self, text: str) -> tuple[Any, ...]:
        """The values of a comma-separated list.

        Raises:
          UserError: one of them is no such value.
        """
        kind = type(self.default)
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise UserError(
                f"--{self.flag}={text}: expects {what}, for instance --{self.flag}={self.default}"
            ) from None

    def _typed(self, value: Any) -> Any:
        kind = type(self.default)
        if kind in (bool, str):
            if not isinstance(value, kind):
                raise UserError(f"--{self.flag}={value}: expects {'true or false' if kind is bool else 'a word'}")
            return value
        try:
            number = kind(value)
        except (OverflowError, TypeError, ValueError):
            number = None
        if number is None or isinstance(value, (bool, str)) or (number != value and value == value):
            raise UserError(f"--{self.flag}={value}: expects a {'whole ' if kind is int else ''}number")
        return number

    def _check(self, value: Any) -> None:
        if self.choices and value not in self.choices:
            raise UserError(f"--{self.flag}={value}: choose one of {', '.join(self.choices)}")
        if isinstance(value, (bool, str)):
            return
        problem = ""
        if not math.isfinite(value) or (value < 0 and self.minimum >= 0):
            problem = "must be a finite number" + (", not negative" if self.minimum >= 0 else "")
        elif value < self.minimum:
            problem = f"must be at least {self.minimum:g}"
        elif value > self.maximum:
            problem = f"must be at most {self.maximum:g}"
        elif isinstance(value, int) and value > _LARGEST_WHOLE:
            problem = f"must be at most {_LARGEST_WHOLE}"
        elif abs(value) > _LARGEST:
            problem = f"must be at most {_LARGEST:g} in size, the largest number in float32"
        elif self.above is not None and value <= self.above:
            problem = f"must be above {self.above:g}"
        elif self.below is not None and value >= self.below:
            problem = f"must be below {self.below:g}"
        if problem:
            raise UserError(f"--{self.flag}={value}: {problem}")


def setting(
    default: Any,
    help: str,
    *,
    swept: bool = False,
    flag: str = "",
    choices: tuple[str, ...] = (),
    minimum: float = 0.0,
    maximum: float = math.inf,
    above: float | None = None,
    below: float | None = None,
    scaled: bool = False,
    leaf: bool = False,
    protocol: bool = False,
    added: bool = False,
) -> Any:
    """A field of a settings class; see `Setting`.

    Args:
      default: its type is the setting's type.
      help: one line without a full stop.
      swept: numbers only; the field is then a leaf of the pytree.
      flag: full name of the flag; `<prefix of the class>_<name of the field>` by default.
      choices: words.
      minimum: inclusive.
      maximum: inclusive.
      above: exclusive lower bound.
      below: exclusive upper bound.
      scaled: whether `--budget` multiplies it.
      leaf: whether the program gets it as an array although no sweep varies it, such as the length of a schedule.
      protocol: whether it changes only what is measured.
      added: whether the stage was once released without it.
    """
    declared = {
        "flag": flag,
        "help": help,
        "swept": swept,
        "choices": choices,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "below": below,
        "scaled": scaled,
        "protocol": protocol,
        "added": added,
    }
    return struct.field(pytree_node=swept or leaf, default=default, metadata={"setting": declared})


def borrowed(settings: type, name: str) -> Any:
    """A field that another class declares and owns: the same flag, default and help."""
    field = next(field for field in dataclasses.fields(settings) if field.name == name)
    owner = _owner(settings, name)
    metadata = {**field.metadata, "owner": owner, "owner_name": name}
    return struct.field(pytree_node=field.metadata["pytree_node"], default=field.default, metadata=metadata)


class _Field(NamedTuple):
    """A setting and the name of its field in a class."""

    name: str
    setting: Setting


@functools.cache
def fields_of(settings: Any) -> tuple[_Field, ...]:
    """The settings that a class declares, inherits or borrows, in order."""
    found = []
    for field in dataclasses.fields(settings):
        if "setting" not in field.metadata:
            continue
        owner = field.metadata.get("owner") or _owner(settings, field.name)
        name = field.metadata.get("owner_name", field.name)
        declared = dict(field.metadata["setting"])
        prefix = owner.__dict__.get("prefix", "")
        declared["flag"] = declared["flag"] or (f"{prefix}_{name}" if prefix else name)
        found.append(_Field(field.name, Setting(default=field.default, owner=owner, **declared)))
    return tuple(found)


def declared(*classes: type) -> dict[str, Setting]:
    """The settings of classes by flag, in order.

    Raises:
      UserError: two classes declare different settings under one name.
    """
    found: dict[str, Setting] = {}
    for cls in classes:
        for field in fields_of(cls):
            flag = field.setting.flag
            if found.setdefault(flag, field.setting) != field.setting:
                owners = f"{found[flag].owner.__module__} and {field.setting.owner.__module__}"
                raise UserError(f"--{flag}: {owners} both declare a setting of this name; give one another prefix")
    return found


def _owner(settings: type, name: str) -> type:
    return next(cls for cls in settings.__mro__ if name in inspect.get_annotations(cls))


class Values(Mapping[str, Any]):
    """An immutable, hashable mapping from flag names to values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Values) and self._values == other._values

    def __repr__(self) -> str:
        return f"Values({self._values})"

    def replace(self, **changes: Any) -> "Values":
        """The same with some values replaced."""
        return Values(self._values | changes)


def read(settings: type[S], values: Mapping[str, Any]) -> S:
    """The settings of a class out of a flat mapping; what the mapping lacks is at its default."""
    cls: Any = settings
    given = {field.name: values.get(field.setting.flag, field.setting.default) for field in fields_of(cls)}
    return settings(**given)


def with_arrays(settings: S) -> S:
    """Settings whose leaves are float32 scalars, as update functions get them inside a compiled program."""
    return jax.tree.map(jnp.float32, settings)


def text_of(value: Any) -> str:
    """A value as tables and member names print it: as short as possible, and never equal for different numbers."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def scale_budget(values: Values, settings: Mapping[str, Setting], budget: float) -> Values:
    """`values` with updates, environment steps and the intervals between evaluations and log rows times `budget`.

    Raises:
      UserError: for a budget that is not a positive number.
    """
    if not 0 < budget < math.inf:
        raise UserError(f"--budget={budget}: must be a positive number, for instance 0.1")
    names = [name for name, setting in settings.items() if setting.scaled and values[name] > 0]
    scaled = {name: max(1, round(budget * values[name])) for name in names}
    for name, value in scaled.items():
        if value > _LARGEST_WHOLE:
            raise UserError(f"--budget={budget:g}: makes --{name}={value:.3g}; must be at most {_LARGEST_WHOLE}")
    return values.replace(**scaled)


@struct.dataclass
class DataSettings:
    """How all members see their data."""

    title: ClassVar[str] = "Data"

    normalize_observations: bool = setting(False, "observations to mean 0 and deviation 1, per dataset")
    precision: str = setting("auto", "precision of matrix products", choices=get_args(Precision))
    trajectory_weighting: float = setting(0.0, "inverse temperature of weights on better episodes; 0: none")


@struct.dataclass
class ValueSettings:
    """What all critics share."""

    title: ClassVar[str] = "Values"

    discount: float = setting(0.99, "discount per step", swept=True, maximum=1.0)
    target_rate: float = setting(0.005, "Polyak rate of the target Q", swept=True, maximum=1.0)


@struct.dataclass
class RewardSettings:
    """How methods that learn values see their rewards."""

    title: ClassVar[str] = "Values"

    reward_transform: str = setting("none", "reward transform, by dataset family unless given", choices=TRANSFORMS)


@struct.dataclass
class OfflineSettings:
    """The offline budget that AWAC, its cloning baseline and offline SAC share."""

    title: ClassVar[str] = "Offline budget of AWAC and SAC"

    steps: int = setting(
        50_000,
        "updates of AWAC, of its cloning baseline and of SAC on the dataset",
        flag="offline_steps",
        minimum=1,
        scaled=True,
    )
    evaluation_interval: int = setting(
        5_000,
        "updates between evaluations of AWAC and SAC offline",
        flag="offline_evaluation_interval",
        minimum=1,
        scaled=True,
        protocol=True,
    )


@struct.dataclass
class OnlineSettings:
    """How learning goes on in the environment."""

    title: ClassVar[str] = "Learning online"

    online_steps: int = setting(0, "environment steps of learning online afterwards; 0: none", scaled=True)
    online_batch_size: int = setting(1024, "batch size online", minimum=1)
    online_warmup_steps: int = setting(1_000, "environment steps before the first update online", scaled=True)
    update_to_data: float = setting(1.0, "updates per environment step", maximum=10_000.0)
    exploration_noise: float = setting(0.1, "deviation of the noise on IQL's actions online")
    online_evaluation_interval: int = setting(
        5_000, "environment steps between evaluations online", minimum=1, scaled=True, protocol=True
    )


@struct.dataclass
class EvaluationSettings:
    """How members are evaluated and logged."""

    title: ClassVar[str] = "Evaluation and logs"

    episodes: int = setting(20, "episodes of an evaluation", minimum=1, protocol=True)
    log_interval: int = setting(
        10_000, "updates between rows of metrics.csv, the compiled chunk", minimum=1, scaled=True, protocol=True
    )
