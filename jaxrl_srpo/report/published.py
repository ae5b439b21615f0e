"""Published scores, to be printed beside the scores of a run."""

import functools
import importlib.resources
import json
import statistics
from collections.abc import Sequence
from typing import Any

# What the literature calls our algorithms. Cloning by diffusion has no published score.
_METHODS = {"iql": "IQL", "srpo": "SRPO", "awac": "AWAC", "td3_bc": "TD3+BC"}
# The methods of SRPO's published table, in its order.
METHODS = ("TD3+BC", "IQL", "Diffuser", "SfBC", "Diffusion-QL", "QGPO", "IDQL", "SRPO")


@functools.cache
def _published() -> dict[str, Any]:
    """The contents of `published.json`."""
    text = importlib.resources.files("jaxrl_srpo.report").joinpath("published.json").read_text(encoding="utf-8")
    return json.loads(text)


def published_name(algorithm: str) -> str | None:
    """What the literature calls an algorithm of `evaluations.csv`; None for one that it does not know."""
    return _METHODS.get(algorithm)


def published_score(dataset_name: str, algorithm: str) -> float | None:
    """The published D4RL-normalized score (0 random, 100 expert; a mean over seeds) of a method on a dataset.

    Args:
      dataset_name: the exact D4RL name, for instance `hopper-medium-v2`. Regenerated or renamed data have no published
        score, however similar their names.
      algorithm: as in `evaluations.csv`: `srpo`, `iql`, `awac` or `td3_bc`; no score is known of others.

    Returns:
      The score, or None where the literature has none.
    """
    method = published_name(algorithm)
    return None if method is None else published_method(method, dataset_name)


def published_method(method: str, dataset_name: str) -> float | None:
    """The published score of one of `METHODS` on a dataset; None where it has none."""
    return _published()["scores"].get(dataset_name, {}).get(method)


def published_average(method: str, dataset_names: Sequence[str]) -> float | None:
    """The mean of a method's published scores over datasets.

    Args:
      method: as the literature calls it, for instance `Diffusion-QL`.
      dataset_names: exact D4RL names.

    Returns:
      The mean, or None where the method has no score for one of them.
    """
    scores = [score for name in dataset_names if (score := published_method(method, name)) is not None]
    return statistics.fmean(scores) if len(scores) == len(dataset_names) else None


def published_source() -> str:
    """One sentence that says where the published scores come from."""
    return _published()["source"]
