"""Files by their content, whatever their names; policies of them pickle; bad files give one line."""

import pathlib
import pickle

import numpy as np
import pytest

import jaxrl_srpo
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.export import npz, onnx, stablehlo
from jaxrl_srpo.export.loading import FilePolicy, load_file
from jaxrl_srpo.methods import fql, srpo
from tests.export import actors

PLAIN = actors.program(srpo.METHOD, srpo.METHOD.stages[-1], actors.SPACES["plain"])
NOISY = actors.program(fql.METHOD, fql.METHOD.stages[-1], actors.SPACES["plain"])
OBSERVATIONS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


@pytest.fixture(scope="module", params=["onnx", "stablehlo", "npz"])
def plain(request: pytest.FixtureRequest) -> bytes:
    match request.param:
        case "npz":
            layers = [layer.activation for layer in npz.layers_of(PLAIN)]
            return npz.write(PLAIN, actors.metadata(PLAIN, "npz", layers))
        case "onnx":
            return onnx.write(PLAIN, actors.metadata(PLAIN, "onnx"))
        case _:
            return stablehlo.write(PLAIN, actors.metadata(PLAIN, "stablehlo"))


def test_a_file_of_any_name_is_a_policy(plain: bytes, tmp_path: pathlib.Path) -> None:
    (tmp_path / "policy.txt").write_bytes(plain)
    policy = jaxrl_srpo.load_policy(tmp_path / "policy.txt")
    np.testing.assert_allclose(policy(OBSERVATIONS), PLAIN(OBSERVATIONS), atol=1e-6)
    assert policy(OBSERVATIONS[0]).shape == (2,)
    with pytest.raises(ValueError, match="expected"):
        policy(np.zeros(4))
    with pytest.raises(UserError, match="a file holds one policy; leave out seed"):
        jaxrl_srpo.load_policy(tmp_path / "policy.txt", seed=0)
    with policy.make_environment() as environment:
        assert environment.observation_space.shape == (3,)


def test_a_policy_of_a_file_pickles(plain: bytes) -> None:
    policy = FilePolicy(plain, "file")
    again = pickle.loads(pickle.dumps(policy))
    np.testing.assert_array_equal(again(OBSERVATIONS), policy(OBSERVATIONS))
    assert again.metadata == policy.metadata


def test_a_policy_that_draws_goes_on_where_its_copy_was_made() -> None:
    policy = FilePolicy(stablehlo.write(NOISY, actors.metadata(NOISY, "stablehlo")), "file")
    first = policy(OBSERVATIONS)
    again = pickle.loads(pickle.dumps(policy))
    second = policy(OBSERVATIONS)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(again(OBSERVATIONS), second)
    noise = np.zeros((4, 2), np.float32)
    np.testing.assert_allclose(policy.act_with(OBSERVATIONS, noise), NOISY(OBSERVATIONS, noise), atol=1e-6)


def test_damage_is_one_line_that_names_the_file(plain: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "policy"
    for content in (b"", b"PK", b"\x08", plain[:50], plain[:-30], plain.replace(b'"seed": 3', b'"seed": 4')):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            load_file(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_what_is_no_policy_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "policy").write_bytes(pickle.dumps(print))
    with pytest.raises(UserError, match="is no exported policy"):
        load_file(tmp_path / "policy")
    with pytest.raises(UserError, match="No such file"):
        load_file(tmp_path / "absent")
