"""Columns are checked before anything is made of them; files of every kind go through here."""

import numpy as np
import pytest

from jaxrl_srpo.data.columns import columns_of, refuse_sizes
from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.processors import memory
from tests.data.swing import swing


def test_numbers_per_step_may_be_columns_and_flags_any_numbers() -> None:
    fields = {name: swing()[name] for name in ("observations", "actions", "rewards", "terminals")}
    fields["terminals"] = (np.arange(200) % 7 == 6).astype(np.float64)[:, None]
    columns = columns_of("x", fields)
    assert (columns.terminals.shape, columns.terminals.dtype) == ((200,), np.dtype(bool))
    assert (columns.timeouts, columns.next_observations) == (None, None)


def test_sizes_are_refused_with_the_figures() -> None:
    refuse_sizes("x", {"observations": (20, 3), "rewards": (20,)}, 320)
    with pytest.raises(DatasetError, match="x: rewards has 19 rows, observations has 20"):
        refuse_sizes("x", {"observations": (20, 3), "rewards": (19,)}, 316)
    with pytest.raises(DatasetError, match=r"x: 1,000,000,000,000 rows need about .* GiB of memory; this machine has"):
        refuse_sizes("x", {"observations": (10**12, 3)}, memory())
