"""The comparison of policies' speed: what each computes, how its work is counted, what is written and refused."""

import csv
import functools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from experiments.benchmarks import sampling_speed
from experiments.benchmarks.sampling_speed import METHODS
from experiments.benchmarks.sampling_speed_report import Latency, Measurement, ratio, summarize
from experiments.benchmarks.throughput import HALFCHEETAH
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.types import Array


@struct.dataclass
class Standard:
    """The noise prediction of N(0, I), sigma_t a_t."""

    def noise_prediction(self, noisy_actions: Array, times: Array, observations: Array) -> Array:
        return diffusion.marginal(times).sigma[:, None] * noisy_actions


@struct.dataclass
class Bowls:
    """Q_i = -|a - c_i|^2 / 2 with the centers of `observations`' two columns."""

    def q_values(self, observations: Array, actions: Array) -> Array:
        return -0.5 * jnp.sum((actions[:, None, :] - observations[:, :, None]) ** 2, axis=-1)


def test_guidance_adds_the_gradient_of_q_to_the_score() -> None:
    actions, times = jnp.asarray([[0.2, -0.4], [0.9, 0.1]]), jnp.asarray([0.2, 0.7])
    centers = jnp.asarray([[0.0, 1.0], [0.5, 0.5]])
    guided = diffusion.score(sampling_speed.Guided(Standard(), Bowls()), actions, times, centers)
    towards = jnp.mean(centers, axis=1, keepdims=True) - actions
    np.testing.assert_allclose(guided, -actions + towards, rtol=1e-5, atol=1e-6)


def test_the_candidate_of_the_highest_min_q_is_taken() -> None:
    actions = jnp.asarray([[0.0], [0.4], [1.0], [-0.9], [-0.2], [0.9]])
    # Between centers 0.3 and 0.7 lies 0.4; of -1 and 0 the nearer to both is -0.2 and not -0.9.
    centers = jnp.repeat(jnp.asarray([[0.3, 0.7], [-1.0, 0.0]]), 3, axis=0)
    best = sampling_speed.best_candidates(Bowls(), centers, actions, 3)
    np.testing.assert_allclose(best, [[0.4], [-0.2]], rtol=1e-6)


# Weights of matrix products: the score network's, one Q network's, the actor's.
_SCORE = 64 * 128 + 128 * 128 + (6 + 17 + 128) * 256 + 3 * 2 * 256 * 1024 + 256 * 6
_Q = (17 + 6) * 256 + 256 * 256 + 256
_ACTOR = 17 * 256 + 256 * 256 + 256 * 6


@pytest.fixture(scope="module")
def models() -> sampling_speed.Models:
    return sampling_speed.make_models(HALFCHEETAH)


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("SRPO", _ACTOR),
        ("Diffusion-QL x 1", 5 * _SCORE),
        ("IDQL", 64 * (5 * _SCORE + 2 * _Q)),
        ("SfBC", 32 * (15 * _SCORE + 2 * _Q)),
        # The gradient of two Q networks goes forward through them, and back to the action.
        ("QGPO", 15 * (_SCORE + 4 * _Q)),
    ],
)
def test_flop_of_an_action(models: sampling_speed.Models, name: str, products: int) -> None:
    counted = sampling_speed.action_flop(METHODS[name], models, HALFCHEETAH)
    assert counted == pytest.approx(2 * products, rel=0.01)


def test_the_compiler_counts_the_same_flop_for_the_actor(models: sampling_speed.Models) -> None:
    act = functools.partial(sampling_speed.act, METHODS["SRPO"], models)
    analysis = jax.jit(act).lower(jnp.zeros((64, 17))).compile().cost_analysis()
    assert analysis is not None
    # It counts additions of biases and activations as well.
    assert analysis["flops"] / 64 == pytest.approx(2 * _ACTOR, rel=0.02)


def test_a_small_comparison_writes_its_three_files(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results"
    arguments = [f"--out={out}", "--against=Diffusion-QL x 1", "--batches=1,4", "--seconds=0", "--rounds=2"]
    sampling_speed.main(arguments)
    rows = list(csv.DictReader((out / "sampling_speed.csv").read_text().splitlines()))
    policies = ["SRPO", "Diffusion-QL x 1", "SRPO by load_policy"]
    assert [(row["method"], row["batch"]) for row in rows] == [(name, batch) for batch in "14" for name in policies]
    assert all(float(row["host_median_us"]) > 0.0 and int(row["host_calls"]) >= 1 for row in rows)
    assert [row["published_score"] for row in rows[:3]] == ["87.1", "87.9", ""]
    assert "matrix products" in rows[0]["conditions"]
    text = (out / "sampling_speed.md").read_text()
    assert "| Diffusion-QL x 1 | DDPM, 5 steps, 1 candidate |" in text
    assert "At batch 1 SRPO acts" in text
    assert (out / "sampling_speed.png").stat().st_size > 10_000
    assert "x SRPO" in capsys.readouterr().out


def measurement(method: str, batch: int, seconds: float) -> Measurement:
    latency = Latency(seconds, seconds, 1)
    return Measurement(method, "", batch, latency, None, 1, None)


def test_the_table_compares_at_equal_batches_and_leaves_blank_what_was_left_out() -> None:
    found = [measurement("SRPO", 1, 1e-5), measurement("IDQL", 1, 1e-3), measurement("SRPO", 1024, 1e-2)]
    assert ratio(found[1], found) == pytest.approx(100.0)
    text = summarize(found, "how", "notes")
    assert "At batch 1 SRPO acts 100 times (IDQL) to 100 times (IDQL) sooner" in text
    assert "| IDQL | 1,000 |  |" in text


def test_larger_batches_are_left_out_by_their_expected_time() -> None:
    found = [measurement("IDQL", 64, 1.0), measurement("IDQL", 256, 4.0)]
    assert sampling_speed.expected_seconds("IDQL", 1024, found) == pytest.approx(16.0)
    assert sampling_speed.expected_seconds("SfBC", 1024, found) == 0.0


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
        (["--out=x", "--against=SRPO"], "--against=SRPO: choose from Diffusion-QL x 1"),
        (["--out=x", "--batches=3"], "--batches=3: choose from 1, 4"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sampling_speed.main(arguments)


def test_help_lists_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert sampling_speed.main(["--help"]) == []
    assert "--against" in capsys.readouterr().out
