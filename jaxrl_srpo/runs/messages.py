"""What training says once about a member: that it diverged, or that it soon may."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from jaxrl_srpo.report.records import LEAST_EFFECTIVE_SAMPLE_SIZE


class Messages:
    """Each thing is said once per member.

    Args:
      names: what messages call the members.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._diverged: set[int] = set()
        self._concentrated: set[int] = set()

    def diverged(self, at: np.ndarray) -> dict[int, str]:
        """Lines by number of the members that newly diverged; `at` [members] is the update, -1 while all is well."""
        return {
            i: f"diverged: {self._names[i]} at update {at[i]}; it keeps its last good state, the others go on"
            for i in _new(at >= 0, self._diverged)
        }

    def concentrated(self, means: Mapping[str, np.ndarray]) -> list[str]:
        """Lines on the members whose weights newly leave next to nothing of a batch in effect."""
        sizes = np.asarray(means.get("effective_sample_size", ())).reshape(-1)
        return [
            f"{self._names[i]}: effective sample size {sizes[i]:.3f}; few actions carry each batch, and Q may leave "
            "its scale; a larger --awac_lambda weighs more evenly"
            for i in _new(sizes < LEAST_EFFECTIVE_SAMPLE_SIZE, self._concentrated)
        ]


def _new(holds: np.ndarray, said: set[int]) -> Iterator[int]:
    """The places where something holds that was not said yet."""
    for i in map(int, np.flatnonzero(holds)):
        if i not in said:
            said.add(i)
            yield i
