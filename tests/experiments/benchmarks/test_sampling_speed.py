"""The comparison of policies' speed: what each computes, how its work is counted, what is written and refused."""

import csv
import math
import pathlib

import jax
import jax.numpy as jnp
import pytest

import jaxrl_srpo
from experiments.benchmarks import sampling_speed
from experiments.benchmarks.acting import Acting, fresh
from experiments.benchmarks.sampling_speed_report import Latency, Measurement, draw, ratio, summarize
from experiments.benchmarks.throughput import HALFCHEETAH
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import find_method
from tests import synthetic

# Weights of matrix products: the score network's, one Q network's, the actor's.
_SCORE = 64 * 128 + 128 * 128 + (6 + 17 + 128) * 256 + 3 * 2 * 256 * 1024 + 256 * 6
_Q = (17 + 6) * 256 + 256 * 256 + 256
_ACTOR = 17 * 256 + 256 * 256 + 256 * 6
# Diffusion-QL's actor and its Q, of three hidden layers.
_NOISE = 16 * 32 + 32 * 16 + (6 + 16 + 17) * 256 + 2 * 256 * 256 + 256 * 6
_Q3 = (17 + 6) * 256 + 2 * 256 * 256 + 256


def policy(name: str) -> Acting:
    return fresh(find_method(name), HALFCHEETAH, "paper", "halfcheetah-medium-v2", "locomotion")


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("srpo", _ACTOR),
        ("td3_bc", _ACTOR),
        ("idql", 64 * (15 * _SCORE + 2 * _Q)),
        ("idql_ddpm", 64 * (5 * _SCORE + 2 * _Q)),
        ("diffusion_ql", 50 * (5 * _NOISE + 2 * _Q3)),
    ],
)
def test_flop_of_an_action(name: str, products: int) -> None:
    assert policy(name).flop() == pytest.approx(2 * products, rel=0.01)


def test_the_compiler_counts_the_same_flop_for_the_actor() -> None:
    analysis = jax.jit(policy("srpo").act).lower(jnp.zeros((64, 17))).compile().cost_analysis()
    assert analysis is not None
    # It counts additions of biases and activations as well.
    assert analysis["flops"] / 64 == pytest.approx(2 * _ACTOR, rel=0.02)


def test_a_small_comparison_writes_its_three_files(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    arguments = [f"--out={out}", "--algorithm=td3_bc", "--batches=1,4", "--seconds=0", "--rounds=2"]
    sampling_speed.main(arguments)
    rows = list(csv.DictReader((out / "sampling_speed.csv").read_text().splitlines()))
    policies = ["SRPO", "TD3+BC", "SRPO by load_policy"]
    assert [(row["method"], row["batch"]) for row in rows] == [(name, batch) for batch in "14" for name in policies]
    assert all(float(row["host_median_us"]) > 0.0 and int(row["host_calls"]) >= 1 for row in rows)
    assert [row["published_score"] for row in rows[:3]] == ["87.1", "76.4", ""]
    assert "matrix products" in rows[0]["conditions"]
    text = (out / "sampling_speed.md").read_text()
    assert "| policy, batch 1 | median | p99 |" in text
    assert "At batch 1 the others take" in text
    assert (out / "sampling_speed.png").stat().st_size > 10_000
    assert "x SRPO" in capsys.readouterr().out


def measurement(method: str, batch: int, seconds: float) -> Measurement:
    latency = Latency(seconds, seconds, 1)
    return Measurement(method, batch, latency, None, 1, None)


def test_the_table_compares_at_equal_batches_and_leaves_blank_what_was_left_out() -> None:
    found = [measurement("SRPO", 1, 1e-5), measurement("IDQL", 1, 1e-3), measurement("SRPO", 1024, 1e-2)]
    assert ratio(found[1], found) == pytest.approx(100.0)
    text = summarize(found, "how")
    assert "At batch 1 the others take 100.0 (IDQL) to 100 (IDQL) times as long as SRPO." in text
    assert "| IDQL | 1,000 |  |" in text


def test_larger_batches_are_left_out_by_their_expected_time() -> None:
    found = [measurement("IDQL", 64, 1.0), measurement("IDQL", 256, 4.0)]
    assert sampling_speed.expected_seconds("IDQL", 1024, found) == pytest.approx(16.0)
    assert sampling_speed.expected_seconds("SfBC", 1024, found) == 0.0


def test_trained_policies_of_a_run_are_timed_without_published_scores(tmp_path: pathlib.Path) -> None:
    data = synthetic.write_pendulum(tmp_path / "one.hdf5")
    jaxrl_srpo.train(data, tmp_path / "run", [3], options=jaxrl_srpo.Options(evaluate=False), **synthetic.TINY)
    options = sampling_speed.Options(run=str(tmp_path / "run"), batches=(1,), seconds=0.0, rounds=1)
    found = sampling_speed.measure(options, log=lambda line: None)
    assert [one.method for one in found] == ["SRPO", "behavior cloning", "IQL actor", "SRPO by load_policy"]
    assert {one.score for one in found} == {None}
    assert [panel.get_xlabel() for panel in draw(found).axes] == ["batch"]


def test_latency_of_calls() -> None:
    few, many = Latency.of([3.0, 1.0, 2.0]), Latency.of([float(i) for i in range(1, 102)])
    assert (few.median, few.calls) == (2.0, 3)
    assert math.isnan(few.p99)
    assert many == Latency(51.0, 100.0, 101)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out: is required"),
        (["--out=x", "rest"], "rest: unexpected"),
        (["--out=x", "--algorithm=SRPO"], "--algorithm=SRPO: choose from srpo"),
        (["--out=x", "--batches=3"], "--batches=3: choose from 1, 4"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampling_speed.main(arguments)


def test_help_lists_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert sampling_speed.main(["--help"]) == []
    assert "--algorithm" in capsys.readouterr().out
