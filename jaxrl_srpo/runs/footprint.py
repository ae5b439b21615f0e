"""What a population needs of memory at the least, known before anything is compiled."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl_srpo.data import table
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.processors import memory
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.methods.settings import Values, with_arrays
from jaxrl_srpo.population.member import call
from jaxrl_srpo.runs.sweep import Member
from jaxrl_srpo.types import Spec


class Footprint(NamedTuple):
    """Bytes that one member needs.

    Attributes:
      state: its training state, which stays.
      product: operands and result of the largest matrix product of an update, which are there at one time.
    """

    state: int
    product: int


def refuse_too_large(stage: Stage, members: Sequence[Member]) -> None:
    """Raises if a population cannot fit into the memory of its devices, whatever the compiler does.

    Raises:
      UserError: with the figures.
    """
    first = members[0]
    swept = {flag: setting.default for flag, setting in first.method.settings().items() if setting.swept}
    one = footprint(stage, first.settings.replace(**swept), first.spec)
    available = _memory_of_devices()
    if len(members) * one.state + one.product <= available:
        return
    states, product, limit = (_gib(size) for size in (len(members) * one.state, one.product, available))
    raise UserError(
        f"stage {stage.name}: the states of {len(members)} members take {states} of memory, and a matrix product of an "
        f"update {product}; there are {limit}; train fewer members together (--members_per_population), or choose "
        "smaller networks or batches"
    )


@functools.lru_cache(maxsize=256)
def footprint(stage: Stage, values: Values, spec: Spec) -> Footprint:
    """What one member of a stage needs; nothing is computed or compiled, but the update is traced."""
    own, sizes = with_arrays(stage.read(values)), stage.spec(spec)

    def update(earlier: Mapping[str, Any]) -> Any:
        frozen = stage.make_frozen(values, earlier, spec)
        batch, data = table.example(sizes, getattr(own, "batch_size", 1))
        given = {"key": jax.random.key(0), "settings": own, "frozen": frozen}
        state = call(stage.init, spec=sizes, **given)
        return state, call(stage.update, state=state, batch=batch, data=data, step=jnp.int32(0), **given)

    earlier = {needed.name: needed.template(values, spec) for needed in stage.needs}
    program, (state, _) = jax.make_jaxpr(update, return_shape=True)(earlier)
    return Footprint(
        sum(_bytes(leaf) for leaf in jax.tree.leaves(state)),
        max((_bytes_of_product(equation) for equation in _products(program.jaxpr)), default=0),
    )


def _products(program: Any) -> Iterator[Any]:
    """Every matrix product of a program and of those that it calls."""
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for parameter in equation.params.values():
            for one in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                inner = getattr(one, "jaxpr", one)
                if hasattr(inner, "eqns"):
                    yield from _products(inner)


def _bytes_of_product(equation: Any) -> int:
    return sum(_bytes(variable.aval) for variable in (*equation.invars, *equation.outvars))


def _bytes(array: Any) -> int:
    # The size of keys is of no account.
    size = getattr(array.dtype, "itemsize", 8)
    return math.prod(array.shape) * size


def _memory_of_devices() -> int:
    """Bytes of all devices of the program; on CPUs, of the machines."""
    stats = [device.memory_stats() or {} for device in jax.local_devices() if device.platform != "cpu"]
    limits = [one["bytes_limit"] for one in stats if "bytes_limit" in one]
    return (sum(limits) if limits else memory()) * jax.process_count()


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"
