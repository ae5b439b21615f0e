"""Files act as the policies of every method do; a run's policy is written whole, or not at all."""

import dataclasses
import pathlib
import zipfile
from types import ModuleType

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import npz, onnx, stablehlo, writing
from jaxrl_srpo.export.loading import FilePolicy, load_file
from jaxrl_srpo.export.metadata import Format, Metadata
from jaxrl_srpo.export.program import Program
from jaxrl_srpo.export.writing import TOLERANCE, compare
from jaxrl_srpo.methods.contract import Method, Stage
from jaxrl_srpo.nn.noise import Drawing
from tests.export import actors

WRITERS: dict[Format, ModuleType] = {"onnx": onnx, "stablehlo": stablehlo}
STAGES = [(method, stage) for method, stage in actors.acting_stages() if not stage.name.startswith("diffuser")]
NETWORKS = ["critic", "policy", "cloning", "awac", "sac", "td3_bc", "rebrac"]
ARCHIVE = pathlib.Path(__file__).parents[1] / "old_run.zip"


@pytest.fixture
def old_run(tmp_path: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "old_run"


def written(program: Program, format: Format) -> FilePolicy:
    return FilePolicy(WRITERS[format].write(program, actors.metadata(program, format)), f"policy.{format}")


def named(number: int) -> tuple[Method, Stage, actors.Space]:
    """Stages by turns in the three spaces; those of little work are in all of them below."""
    method, stage = STAGES[number]
    return method, stage, list(actors.SPACES.values())[number % 3]


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("number", range(len(STAGES)), ids=[stage.name for _, stage in STAGES])
def test_every_policy_acts_alike_from_a_file(number: int, format: Format) -> None:
    program = actors.program(*named(number))
    policy = written(program, format)
    agreement = compare(program, policy, 300)
    assert agreement.holds, agreement
    for batch in (1, 7, 64):
        inputs = actors.inputs(program, batch)
        actions = policy.act_with(*inputs)
        assert (actions.shape, actions.dtype) == ((batch, program.action_size), np.float32)
        assert np.all(actions >= np.asarray(program.units.action_low))
        assert np.all(actions <= np.asarray(program.units.action_high))


@pytest.mark.parametrize("space", actors.SPACES.values(), ids=list(actors.SPACES))
@pytest.mark.parametrize("name", NETWORKS)
def test_deterministic_networks_agree_to_a_millionth_in_every_space(name: str, space: actors.Space) -> None:
    method, stage = next(one for one in STAGES if one[1].name == name)
    program = actors.program(method, stage, space)
    layers = [layer.activation for layer in npz.layers_of(program)]
    in_numpy = FilePolicy(npz.write(program, actors.metadata(program, "npz", layers)), "policy.npz")
    for policy in (in_numpy, written(program, "onnx"), written(program, "stablehlo")):
        agreement = compare(program, policy, 300)
        assert agreement.largest <= TOLERANCE
        assert (agreement.tolerance, agreement.elsewhere) == (TOLERANCE, 0.0)


def test_a_file_of_other_weights_does_not_agree() -> None:
    method, stage = next(one for one in STAGES if one[1].name == "policy")
    space = actors.SPACES["pendulum"]
    other = written(actors.program(method, stage, space, seed=1), "stablehlo")
    assert not compare(actors.program(method, stage, space), other, 20).holds


def test_what_draws_is_compared_as_closely_as_its_own_rounding_allows() -> None:
    method, stage = next(one for one in STAGES if one[1].name == "fql")
    program = actors.program(method, stage, actors.SPACES["plain"])
    assert isinstance(program.policy, Drawing)
    other = actors.program(method, stage, actors.SPACES["plain"], seed=1)
    assert compare(program, written(program, "stablehlo"), 50).tolerance < 1e-4
    assert compare(program, written(other, "stablehlo"), 50).elsewhere > 0.9


@pytest.mark.parametrize("format", ["onnx", "stablehlo", "npz"])
def test_a_policy_of_a_run_acts_alike_without_the_run(
    old_run: pathlib.Path, tmp_path: pathlib.Path, format: Format
) -> None:
    policy = jaxrl_srpo.load_policy(old_run, algorithm="srpo", beta=0.1)
    # The suffix says nothing.
    agreement = jaxrl_srpo.export_policy(old_run, tmp_path / "one.policy", format, algorithm="srpo", beta=0.1)
    assert agreement.largest <= 1e-6
    loaded = load_file(tmp_path / "one.policy")
    observations = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    np.testing.assert_allclose(loaded(observations), policy(observations), atol=4e-6)
    np.testing.assert_allclose(loaded(observations[0]), policy(observations[0]), atol=4e-6)
    found = loaded.metadata
    assert (found.algorithm, found.seed, found.settings["beta"], found.swept) == ("srpo", 0, 0.1, ["beta"])
    assert loaded.environment == policy.environment
    assert found.chosen_by == "the only one that was asked for"


def test_a_file_that_disagrees_is_not_written(
    old_run: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = npz.write

    def wrong(program: Program, metadata: Metadata) -> bytes:
        low = np.asarray(program.units.action_low) + 0.1
        return real(dataclasses.replace(program, units=dataclasses.replace(program.units, action_low=low)), metadata)

    monkeypatch.setitem(writing.WRITERS, "npz", wrong)
    with pytest.raises(UserError, match=r"not written, its actions differ from JAX's by .*1.0e-06 allowed"):
        jaxrl_srpo.export_policy(old_run, tmp_path / "policy.npz", "npz", algorithm="srpo", beta=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old_run"]


def test_a_disk_that_cannot_be_written_leaves_the_old_file(old_run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "policy.npz").mkdir()
    with pytest.raises(UserError, match=r"policy.npz: Is a directory"):
        jaxrl_srpo.export_policy(old_run, tmp_path / "policy.npz", "npz", algorithm="srpo", beta=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old_run", "policy.npz"]
