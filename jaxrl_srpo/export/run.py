"""Running what a file holds, and the noise that it needs."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxrl_srpo.nn.noise import Columns

FileAct = Callable[..., np.ndarray]
"""(observations [B, observation_size], noise [B, n] if the policy draws) -> actions [B, action_size], all float32."""


def draw(columns: Sequence[Columns], batch: int, generator: np.random.Generator) -> np.ndarray:
    """Noise [batch, n] float32 for a policy that acts by these columns."""
    parts = []
    for one in columns:
        shape = (batch, one.size)
        parts.append(generator.standard_normal(shape) if one.kind == "normal" else generator.gumbel(size=shape))
    return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")
