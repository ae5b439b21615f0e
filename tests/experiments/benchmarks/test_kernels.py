"""Kernels of an update: sums over a profiler's events, and over the loop of a compiled program."""

import pathlib

import pytest

from experiments.benchmarks import kernels, throughput
from experiments.benchmarks.kernels import Kernel
from jaxrl_srpo.errors import UserError

PROGRAM = """HloModule chunk

%fused (p: bf16[8,256,17], q: bf16[8,17,64]) -> f32[8,256,64] {
  %p = bf16[8,256,17]{2,1,0} parameter(0)
  %q = bf16[8,17,64]{2,1,0} parameter(1)
  ROOT %dot = f32[8,256,64]{2,1,0} dot(%p, %q), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}, \
rhs_contracting_dims={1}
}

%body (state: (f32[1000], bf16[8,256,17], bf16[8,17,64])) -> (f32[1000], bf16[8,256,17], bf16[8,17,64]) {
  %state = (f32[1000]{0}, bf16[8,256,17]{2,1,0}, bf16[8,17,64]{2,1,0}) parameter(0)
  %x = f32[1000]{0} get-tuple-element(%state), index=0
  %p.1 = bf16[8,256,17]{2,1,0} get-tuple-element(%state), index=1
  %q.1 = bf16[8,17,64]{2,1,0} get-tuple-element(%state), index=2
  %loop_add_fusion.1 = f32[1000]{0} fusion(%x), kind=kLoop, calls=%other
  %loop_add_fusion.2 = f32[1000]{0} fusion(%loop_add_fusion.1, %x), kind=kLoop, calls=%other
  %gemm_fusion_dot.3 = f32[8,256,64]{2,1,0} fusion(%p.1, %q.1), kind=kCustom, calls=%fused
  ROOT %tuple = (f32[1000]{0}, bf16[8,256,17]{2,1,0}, bf16[8,17,64]{2,1,0}) tuple(%loop_add_fusion.2, %p.1, %q.1)
}

%other (y: f32[1000]) -> f32[1000] {
  %y = f32[1000]{0} parameter(0)
  ROOT %sum = f32[1000]{0} add(%y, %y)
}

ENTRY %main (a: (f32[1000], bf16[8,256,17], bf16[8,17,64])) -> (f32[1000], bf16[8,256,17], bf16[8,17,64]) {
  %a = (f32[1000]{0}, bf16[8,256,17]{2,1,0}, bf16[8,17,64]{2,1,0}) parameter(0)
  %copy = f32[1000]{0} copy(%a)
  ROOT %while = (f32[1000]{0}, bf16[8,256,17]{2,1,0}, bf16[8,17,64]{2,1,0}) while(%a), condition=%other, body=%body
}
"""


def test_a_plan_counts_the_kernels_of_the_loop_and_their_bytes() -> None:
    add, product = kernels._kernels_in(kernels._parse(PROGRAM))
    # Two kernels; one reads and writes 4,000 bytes, the other reads twice as many.
    assert (add.name, add.launches, add.megabytes) == ("loop_add_fusion", 2.0, pytest.approx(0.020))
    assert add.microseconds == pytest.approx(2 * 1.5 + 0.020e6 / 3.0e6)
    assert (product.name, product.launches) == ("gemm_fusion_dot", 1.0)
    assert product.megabytes == pytest.approx(1e-6 * 8 * (2 * 256 * 17 + 2 * 17 * 64 + 4 * 256 * 64))
    fused = kernels._parse(PROGRAM)["fused"]
    assert kernels._flop(fused) == 2 * 8 * 256 * 17 * 64


def test_a_profile_is_per_update_and_of_the_gpus_streams_only() -> None:
    def named(pid: int, tid: int, name: str) -> dict[str, object]:
        return {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}

    def event(tid: int, name: str, microseconds: float) -> dict[str, object]:
        return {"ph": "X", "pid": 1, "tid": tid, "name": name, "dur": microseconds}

    events = [
        named(1, 1, "Stream #13(Compute)"),
        named(1, 2, "XLA Ops"),
        event(1, "loop_add_fusion_3", 4.0),
        event(1, "loop_add_fusion", 2.0),
        event(1, "nvjet_sm90_NNT", 6.0),
        event(2, "loop_add_fusion_3", 100.0),
    ]
    found = [kernel[:3] for kernel in kernels._kernels_of(events, 2)]
    assert found == [("loop_add_fusion", 1.0, 3.0), ("nvjet_sm90_NNT", 0.5, 3.0)]


def test_a_table_has_the_longest_first_and_all_of_them_last() -> None:
    found = [Kernel("short", 1.0, 2.0, 1.0), Kernel("long", 2.0, 30.0, 5.0), Kernel("middle", 3.0, 4.0, 3.0)]
    assert kernels.describe(found, top=1).splitlines() == [
        "      30.0 us     2.0 launches       5.0 MB  long",
        "       6.0 us     4.0 launches       4.0 MB  others",
        "      36.0 us     6.0 launches       9.0 MB  all",
    ]
    assert kernels.describe([]).split() == ["0.0", "us", "0.0", "launches", "0.0", "MB", "all"]


def test_a_profile_needs_a_gpu(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"--profile: needs a GPU; --plan says on any machine what an H100 would run"):
        throughput.main([f"--out={tmp_path}", "--profile", "--stages=critic"])
    assert not list(tmp_path.iterdir())
