"""Noise has the distributions that the metadata name."""

import numpy as np
import pytest

from jaxrl_srpo.export.run import draw
from jaxrl_srpo.nn.noise import Columns


def test_columns_are_drawn_from_their_distributions() -> None:
    noise = draw([Columns("normal", 2), Columns("gumbel", 1)], 20_000, np.random.default_rng(0))
    assert (noise.shape, noise.dtype) == ((20_000, 3), np.float32)
    assert noise[:, :2].mean() == pytest.approx(0.0, abs=0.02)
    assert noise[:, :2].std() == pytest.approx(1.0, abs=0.02)
    # Euler's constant, and pi / sqrt(6).
    assert noise[:, 2].mean() == pytest.approx(0.5772, abs=0.03)
    assert noise[:, 2].std() == pytest.approx(1.2825, abs=0.03)
