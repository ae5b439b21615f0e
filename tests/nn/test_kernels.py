"""How products are run is said by a context, for what is traced inside it."""

import pytest

from jaxrl_srpo.nn import kernels


def test_batching_holds_inside_and_is_undone() -> None:
    assert not kernels.batched()
    with kernels.batching(True):
        assert kernels.batched()
        with kernels.batching(False):
            assert not kernels.batched()
        assert kernels.batched()
    with pytest.raises(ZeroDivisionError), kernels.batching(True):
        1 / 0  # noqa: B018
    assert not kernels.batched()
