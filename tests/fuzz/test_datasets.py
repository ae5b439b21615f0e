"""A part of the malformed and odd datasets; `python -m tests.fuzz.datasets` reads as many as one likes."""

import itertools
import pathlib

import pytest

from tests.fuzz import datasets
from tests.fuzz.mutation import Expected

SEED, TESTS, EACH = 0, 8, 20


@pytest.mark.parametrize("part", range(TESTS))
def test_none_gives_a_traceback_or_is_taken_for_another(tmp_path: pathlib.Path, part: int) -> None:
    chosen = itertools.islice(datasets.cases(TESTS * EACH, SEED), part * EACH, (part + 1) * EACH)
    said = []
    for case in chosen:
        root = tmp_path / str(case.seed)
        root.mkdir()
        said.append(datasets.play(case, root))
    assert not [line for line in said if line]


def test_a_case_is_the_same_each_time_and_every_mutation_comes() -> None:
    assert list(datasets.cases(50, 3)) == list(datasets.cases(50, 3))
    everything = {(kind, mutation.name) for kind, mutations in datasets.kinds().items() for mutation in mutations}
    assert len(everything) > 150
    assert {(case.kind, case.mutation.name) for case in datasets.cases(1500, 0)} == everything
    assert {case.mutation.expected for case in datasets.cases(100, 0)} == set(Expected)
