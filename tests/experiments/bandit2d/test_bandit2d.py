"""The 2D bandit command on a tiny budget, and the mathematics that it adds to the package."""

import csv
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from experiments.bandit2d import bandit2d, figure
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods import behavior
from jaxrl_srpo.nn import diffusion
from jaxrl_srpo.types import Spec

ROOT = pathlib.Path(bandit2d.__file__).parents[2]
Run = tuple[pathlib.Path, list[figure.Result]]
TINY = ("--behavior_steps=2000", "--policy_steps=150", "--resolution=16")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("bandit2d") / "results"
    results = bandit2d.main([f"--out={out}", "--distributions=eight_gaussians,two_moons", *TINY])
    return out, results


def test_csv_has_every_policy(run: Run) -> None:
    out, results = run
    with (out / "bandit2d.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == bandit2d.COLUMNS
    assert len(rows) == 2 * 49 * len(figure.INVERSE_BETAS)
    assert {row["distribution"] for row in rows} == {"eight_gaussians", "two_moons"}
    numbers = np.array([[float(row[column]) for column in bandit2d.COLUMNS[1:]] for row in rows])
    assert np.all(np.isfinite(numbers))
    assert np.abs(numbers[:, 3:5]).max() <= 1.0
    np.testing.assert_allclose(numbers[:, 5], np.concatenate([r.log_density.ravel() for r in results]), rtol=1e-4)


def test_regularization_raises_the_log_density(run: Run) -> None:
    for result in run[1]:
        assert result.log_density[:, -1].mean() > result.log_density[:, 0].mean() + 0.5


def test_policies_without_regularization_reach_their_targets(run: Run) -> None:
    for result in run[1]:
        assert np.abs(result.actions[:, 0] - figure.targets()).mean() < 0.1


def test_pictures_are_small_pngs(run: Run) -> None:
    out, results = run
    for result in results:
        content = (out / f"{result.name}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 250_000
    assert sorted(path.name for path in out.iterdir()) == ["bandit2d.csv", "eight_gaussians.png", "two_moons.png"]


def test_summary_has_one_line_per_distribution(run: Run) -> None:
    lines = bandit2d.summarize(run[1]).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["eight_gaussians", "two_moons"]


def test_behavior_is_the_rescaled_model() -> None:
    # A Gaussian is known exactly at any scale: for a ~ N(0, s^2), eps(a_t, t) = sigma a_t / (alpha^2 s^2 + sigma^2).
    spread = 0.3

    class Gaussian:
        def noise_prediction(self, noisy_actions: jax.Array, times: jax.Array, observations: jax.Array) -> jax.Array:
            assert observations.shape == (len(noisy_actions), 0)
            alpha, sigma = (x[:, None] for x in diffusion.marginal(times))
            return sigma * noisy_actions / ((alpha * bandit2d.SCALE * spread) ** 2 + sigma**2)

    model = bandit2d.Behavior(Gaussian())
    times = jnp.asarray([0.005, 0.05, 0.3])
    points = jnp.asarray([[0.1, -0.2], [0.5, 0.3], [-0.9, 0.0]])
    alpha, sigma = (x[:, None] for x in diffusion.marginal(times))
    expected = sigma * points / ((alpha * spread) ** 2 + sigma**2)
    np.testing.assert_allclose(model.noise_prediction(points, times, jnp.ones((3, 2))), expected, rtol=1e-4)
    density = -jnp.sum(points**2, axis=-1) / (2 * spread**2) - np.log(2 * np.pi * spread**2)
    np.testing.assert_allclose(model.log_density(points), density, atol=0.01)


def test_critic_peaks_at_its_observation() -> None:
    targets = jnp.asarray([[0.3, -0.6]])
    critic = bandit2d.QuadraticCritic()
    assert critic.q_values(targets, targets).shape == (1, 1)
    gradient = jax.grad(lambda a: critic.q_values(targets, a)[0, 0])(jnp.zeros((1, 2)))
    np.testing.assert_allclose(gradient, 2 * targets)


def test_behavior_network_takes_no_observation() -> None:
    model = behavior.model_of(behavior.init(jax.random.key(0), Spec(0, 2), bandit2d.BEHAVIOR))
    prediction = bandit2d.Behavior(model).noise_prediction(jnp.zeros((4, 2)), jnp.full(4, 0.5), jnp.ones((4, 2)))
    assert prediction.shape == (4, 2)


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert bandit2d.main(["--help"]) == []
    text = capsys.readouterr().out
    for flag in ("--out", "--distributions", "--seed", "--behavior_steps", "--policy_steps", "--resolution"):
        assert flag in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--out: is required"),
        (("--out=x", "--distributions=torus"), "choose from two_moons"),
        (("--out=x", "extra"), "extra: unexpected"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bandit2d.main(arguments)


def test_out_must_not_be_a_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(UserError, match="is a file; give a directory"):
        bandit2d.main([f"--out={path}"])


def test_bad_flag_is_an_error() -> None:
    with pytest.raises(flags.Error):
        bandit2d.main(["--out=x", "--behavior_steps=0"])


def test_script_exits_with_2_after_bad_input() -> None:
    command = [sys.executable, "-m", "experiments.bandit2d.bandit2d", "--seed=many"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("bandit2d.bandit2d: ")
    assert done.stderr.count("\n") == 1
