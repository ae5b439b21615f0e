"""Functions without loops and calls: what a format needs that has neither, and what rounds as JAX does.

A sampler is a scan over times; of each step, the schedule's numbers depend on no input. Unrolled, they are computed
here once, and what is left is products and activations of the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call")


def unrolled(function: Callable[..., jax.Array], *inputs: jax.ShapeDtypeStruct) -> core.ClosedJaxpr:
    """A program that computes what `function` computes, its loops unrolled, its constants folded.

    Args:
      function: of arrays of these shapes, which may be symbolic.
      inputs: shapes and types of its arguments.
    """
    program = jax.make_jaxpr(function)(*inputs)
    return jax.make_jaxpr(lambda *values: _run(program, values)[0])(*inputs)


def _run(program: core.ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    """The results of a program; what depends on constants alone is computed at once, all else is traced."""
    values: dict[Any, Any] = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    values |= dict(zip(program.jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for equation in program.jaxpr.eqns:
        results = _apply(equation, [read(atom) for atom in equation.invars])
        values |= dict(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in program.jaxpr.outvars]


def _apply(equation: Any, inputs: list[Any]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        return _run(_closed(params.get("jaxpr") or params.get("call_jaxpr")), inputs)
    if name == "scan":
        return _steps(params, inputs)
    if any(isinstance(value, jax.core.Tracer) for value in inputs) or _symbolic(equation):
        found = equation.primitive.bind(*inputs, **params)
    else:
        with jax.ensure_compile_time_eval():
            found = equation.primitive.bind(*inputs, **params)
    return found if equation.primitive.multiple_results else [found]


def _symbolic(equation: Any) -> bool:
    """Whether a result's size depends on the batch."""
    sizes = [size for result in equation.outvars for size in getattr(result.aval, "shape", ())]
    return not all(isinstance(size, int) for size in sizes)


def _closed(program: Any) -> core.ClosedJaxpr:
    return program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())


def _steps(params: Any, inputs: list[Any]) -> list[Any]:
    """A scan, step by step."""
    consts, first_sequence = params["num_consts"], params["num_consts"] + params["num_carry"]
    carry, sequences = inputs[consts:first_sequence], inputs[first_sequence:]
    order = range(params["length"])
    outputs = []
    for i in reversed(order) if params["reverse"] else order:
        with jax.ensure_compile_time_eval():
            now = [sequence[i] for sequence in sequences if not isinstance(sequence, jax.core.Tracer)]
        taken = iter(now)
        rows = [sequence[i] if isinstance(sequence, jax.core.Tracer) else next(taken) for sequence in sequences]
        results = _run(params["jaxpr"], [*inputs[:consts], *carry, *rows])
        carry = results[: params["num_carry"]]
        outputs.append(results[params["num_carry"] :])
    assert not any(outputs), "a scan that collects what its steps give"
    return carry
