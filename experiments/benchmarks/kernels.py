"""The kernels of an update on a GPU: measured by the profiler, or planned on a machine without a GPU.

A plan compiles the chunk that training runs for an H100 ahead of time; nothing runs, and no GPU is needed, only
`pip install 'jax[cuda12]'`. Kernels are counted in the program's loop. A kernel's bytes are those of its operands and
results, its time the larger of bytes over bandwidth and FLOP over the matrix rate, and a fixed cost per launch. It is a
model: a plan says what a change should give, a device says what it gave. Autotuning is off, so products differ from
those of a device; a gather is taken to read its whole table.
"""

import collections
import contextlib
import gzip
import importlib
import importlib.util
import json
import math
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from jaxrl_srpo.data.table import row_width
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.population.offline import vectorize_chunk, vectorize_init
from jaxrl_srpo.population.vectorize import PlacedMembers

from .workload import Workload

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  shared_memory_per_block_optin: 232448 cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Bytes and FLOP per second, and seconds per launch, as measured on an H100.
_BANDWIDTH, _MATRIX, _LAUNCH = 3.0e12, 7.5e14, 1.5e-6
_WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_SHAPE = re.compile(rf"\b({'|'.join(_WIDTHS)})\[([0-9,]*)\]")
_BODY, _CALLED = r"body=%?([\w.\-]+)", r"(?:calls|to_apply)=%?([\w.\-]+)"
_NO_KERNEL = ("parameter", "get-tuple-element", "tuple", "constant", "bitcast", "after-all", "partition-id")


class Kernel(NamedTuple):
    """Kernels of one name in an update.

    Attributes:
      name: as the compiler calls them, without its numbers.
      launches: per update of the population.
      microseconds: of all of them together.
      megabytes: of their operands and results; NaN where measured.
    """

    name: str
    launches: float
    microseconds: float
    megabytes: float = math.nan


def describe(kernels: Sequence[Kernel], top: int = 12) -> str:
    """A table, longest first, and the sums."""
    ordered = sorted(kernels, key=lambda kernel: -kernel.microseconds)
    rest = ordered[top:]
    shown = [*ordered[:top], _sum("others", rest)] if rest else ordered
    lines = [_line(kernel) for kernel in (*shown, _sum("all", ordered))]
    return "\n".join(lines)


def _sum(name: str, kernels: Iterable[Kernel]) -> Kernel:
    counted = [Kernel(name, 0.0, 0.0, 0.0), *kernels]
    return Kernel(name, *(sum(column) for column in zip(*(kernel[1:] for kernel in counted), strict=True)))


def _line(kernel: Kernel) -> str:
    moved = "" if math.isnan(kernel.megabytes) else f"{kernel.megabytes:10,.1f} MB"
    return f"{kernel.microseconds:10,.1f} us {kernel.launches:7.1f} launches{moved}  {kernel.name}"


def require_gpu() -> None:
    """Raises where nothing can be profiled.

    Raises:
      UserError: the device is no GPU.
    """
    if jax.devices()[0].platform != "gpu":
        raise UserError("--profile: needs a GPU; --plan says on any machine what an H100 would run")


def measured(run: Callable[[int], None], steps: int) -> list[Kernel]:
    """What the profiler sees of `run(steps)` on a GPU.

    Raises:
      UserError: the device is no GPU.
    """
    require_gpu()
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            run(steps)
        (path,) = pathlib.Path(directory).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return _kernels_of(events, steps)


def _kernels_of(events: Sequence[Mapping[str, Any]], steps: int) -> list[Kernel]:
    """Kernels by name, per step, of the events of a trace in Chrome's format."""
    names = {(e["pid"], e.get("tid")): e["args"]["name"] for e in events if e.get("ph") == "M" and "name" in e["args"]}
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    for event in events:
        thread = str(names.get((event.get("pid"), event.get("tid")), ""))
        if event.get("ph") == "X" and thread.startswith("Stream"):
            total = found[_stem(event["name"])]
            total[0] += 1.0 / steps
            total[1] += event["dur"] / steps
    return [Kernel(name, *total) for name, total in found.items()]


def _stem(name: str) -> str:
    return re.sub(r"[_.\d]+$", "", name)


def planned(workload: Workload) -> list[Kernel]:
    """What an H100 would run in an update of a population, at today's precision.

    Raises:
      UserError: JAX has no compiler for GPUs here.
    """
    program = _lower(workload).compile(compiler_options={"xla_gpu_autotune_level": "0"})
    return _kernels_in(_parse(program.as_text()))


def _lower(workload: Workload) -> Any:
    placed = PlacedMembers((workload.groups, workload.members_per_group), "vmap", [_described_device()])

    def shapes(function: Callable[..., Any], *arguments: Any) -> Any:
        found = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed.replicated), found)

    start = vectorize_init(placed, workload.stage.init, workload.sizes)
    run: Any = vectorize_chunk(placed, workload.stage.update, workload.sizes)
    members, frozen = shapes(workload.describe), shapes(workload.untrained)
    number = shapes(lambda: jnp.int32(0))
    return run.lower(
        carry=shapes(lambda members, frozen: start(members=members, frozen=frozen), members, frozen),
        members=members,
        frozen=frozen,
        rows=shapes(lambda: jnp.zeros((workload.rows, row_width(workload.sizes)))),
        start=number,
        steps=number,
    )


def _described_device() -> jax.Device:
    for name in ("xla_cuda13", "xla_cuda12"):
        if importlib.util.find_spec(f"jax_plugins.{name}") is None:
            continue
        plugin = importlib.import_module(f"jax_plugins.{name}")
        # Where JAX has found the plugin itself, it is initialized already.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            plugin.initialize()
        found = topologies.get_topology_desc(platform="cuda", topology_name="", target_config=_H100, topology="1x1x1")
        device: jax.Device = found.devices[0]
        return device
    raise UserError("--plan: JAX has no compiler for GPUs here; pip install 'jax[cuda12]'")


class _Instruction(NamedTuple):
    name: str
    result: str
    kind: str
    call: str

    @classmethod
    def parse(cls, line: str) -> "_Instruction | None":
        match = re.match(r"(?:ROOT )?%?([\w.\-]+) = (.*)", line)
        if match is None:
            return None
        name, rest = match.groups()
        depth = 0
        for at, char in enumerate(rest):
            depth += (char in "([{") - (char in ")]}")
            if depth == 0 and char == " ":
                return cls(name, rest[:at], rest[at + 1 :].partition("(")[0], rest[at + 1 :])
        return None

    @property
    def operands(self) -> list[str]:
        inside = self.call.partition("(")[2].partition(")")[0]
        return list(dict.fromkeys(re.findall(r"%([\w.\-]+)", inside)))

    def attribute(self, pattern: str) -> str | None:
        match = re.search(pattern, self.call)
        return match.group(1) if match else None


# The instructions of every computation of an optimized program, by its name.
_Program = dict[str, list[_Instruction]]


def _parse(text: str) -> _Program:
    program: _Program = {}
    name = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and line.rstrip().endswith("{"):
            name = line.partition("(")[0].replace("ENTRY", "").split()[0].lstrip("%")
            program[name] = []
        elif name and line.startswith("  ") and (found := _Instruction.parse(line.strip())):
            program[name].append(found)
    return program


def _bytes(shapes: str) -> int:
    return sum(_WIDTHS[kind] * _elements(sizes) for kind, sizes in _SHAPE.findall(shapes))


def _elements(sizes: str) -> int:
    return math.prod(int(size) for size in sizes.split(",") if size)


def _flop(instructions: Sequence[_Instruction]) -> int:
    """Of the matrix products of a computation."""
    results = {one.name: one.result for one in instructions}
    total = 0
    for one in instructions:
        contracted = one.attribute(r"lhs_contracting_dims=\{([0-9,]*)\}")
        if one.kind == "dot" and contracted is not None and (shape := _SHAPE.search(results.get(one.operands[0], ""))):
            sizes = [int(size) for size in shape.group(2).split(",")]
            summed = math.prod(sizes[int(axis)] for axis in contracted.split(","))
            total += 2 * summed * _elements(_SHAPE.findall(one.result)[0][1])
    return total


def _kernels_in(program: _Program) -> list[Kernel]:
    """Kernels by name of the longest loop; of loops within it once."""
    bodies = {body for ones in program.values() for one in ones if (body := one.attribute(_BODY))}
    computations = [max(bodies, key=lambda name: len(program[name]))]
    found: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0, 0.0])
    while computations:
        instructions = program[computations.pop()]
        results = {one.name: one.result for one in instructions}
        for one in instructions:
            called = one.attribute(_BODY if one.kind == "while" else _CALLED)
            if one.kind in ("while", "call") and called:
                computations.append(called)
            elif one.kind not in _NO_KERNEL:
                moved = _bytes(one.result) + sum(_bytes(results.get(name, "")) for name in one.operands)
                flop = _flop(program[called]) if one.kind == "fusion" and called else 0
                seconds = max(moved / _BANDWIDTH, flop / _MATRIX) + _LAUNCH
                total = found[_stem(one.attribute(r'custom_call_target="([^"]+)"') or one.name)]
                for i, value in enumerate((1.0, 1e6 * seconds, 1e-6 * moved)):
                    total[i] += value
    return [Kernel(name, *total) for name, total in found.items()]
