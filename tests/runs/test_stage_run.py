"""When a stage stops for rows and evaluations, and what names its members' rows; the rest is in `test_trainer`."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from jaxrl_srpo.runs.stage_run import Schedule, key_of
from jaxrl_srpo.runs.sweep import NAMING_COLUMNS

COUNTS = st.integers(1, 60)


@given(total=COUNTS, evaluation=COUNTS, log=COUNTS, start=st.integers(0, 60))
def test_chunks_cover_what_is_left_and_end_at_every_row_and_evaluation(
    total: int, evaluation: int, log: int, start: int
) -> None:
    chunks = list(Schedule(total, evaluation, log).chunks(start))
    assert [step for chunk in chunks for step in range(*chunk)] == list(range(start, total))
    due = {step for step in range(start + 1, total + 1) if step % evaluation == 0 or step % log == 0 or step == total}
    assert {stop for _, stop in chunks} == due
    assert all(one[1] == other[0] for one, other in itertools.pairwise(chunks))


def test_rows_of_both_files_are_named_alike() -> None:
    cells = dict(zip(NAMING_COLUMNS, ("critic", "mine", 3, "", 0.1), strict=True))
    assert key_of(cells | {"step": 4}) == key_of({name: str(cell) for name, cell in cells.items()} | {"mean": "1"})
    assert key_of(cells) != key_of(cells | {"seed": 4})
