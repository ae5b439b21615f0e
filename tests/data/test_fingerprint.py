"""A fingerprint follows every bit that training sees, and nothing else."""

import numpy as np
import pytest

from jaxrl_srpo.data.fingerprint import fingerprint, fingerprint_of, inputs_fingerprint, inputs_fingerprint_of
from tests.data.arrays import random_dataset

NAMES = ("observations", "actions", "rewards", "next_observations", "terminals", "action_low", "action_high")


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = ((6, 2), (6, 1), (6,), (6, 2), (6,), (1,), (1,))
    content = {name: random.normal(size=shape).astype(np.float32) for name, shape in zip(NAMES, shapes, strict=True)}
    return content | {"terminals": np.zeros(6, bool)}


def test_known_value() -> None:
    ones = {name: np.ones(1, np.float32) for name in NAMES}
    assert fingerprint(**ones) == "40eeba8c0de71d94feb4587fa3cbd0a9deba90c2d9da1bf6937e0d6898eb4b89"


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_number_changes_it(name: str) -> None:
    changed = arrays()
    changed[name].flat[0] = not changed[name].flat[0] if name == "terminals" else changed[name].flat[0] + 1.0
    assert fingerprint(**changed) != fingerprint(**arrays())


def test_shape_and_type_count_but_the_layout_in_memory_does_not() -> None:
    first = fingerprint(**arrays())
    assert fingerprint(**(arrays() | {"observations": np.asfortranarray(arrays()["observations"])})) == first
    assert fingerprint(**(arrays() | {"rewards": arrays()["rewards"][:, None]})) != first
    assert fingerprint(**(arrays() | {"rewards": arrays()["rewards"].astype(np.float64)})) != first


def test_that_of_a_dataset_is_of_what_it_holds_now() -> None:
    data = random_dataset(12)
    found = fingerprint_of(data)
    assert found == fingerprint(**{name: getattr(data, name) for name in NAMES})
    shared = inputs_fingerprint_of(data)
    data.rewards[3] += 1.0
    assert fingerprint_of(data) != found
    assert inputs_fingerprint_of(data) == shared
    data.actions[3] += 1.0
    assert inputs_fingerprint_of(data) != shared


def test_that_of_the_inputs_is_the_same_whatever_is_earned() -> None:
    names = ("observations", "actions", "next_observations", "action_low", "action_high")
    given = {name: values for name, values in arrays().items() if name in names}
    first = inputs_fingerprint(**given)
    assert first != fingerprint(**arrays())
    for name in names:
        assert inputs_fingerprint(**(given | {name: given[name] + 1})) != first
