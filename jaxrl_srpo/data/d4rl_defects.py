"""Known defects of D4RL's AntMaze files, found in their contents; they are told of, and nothing is repaired."""

import numpy as np

from jaxrl_srpo.data.columns import Columns

# Of the medium maze; its goal lies beyond in both directions.
_GOAL_FROM = 19.0


def defects(name: str, columns: Columns) -> list[str]:
    """A line for each known defect that a D4RL file has.

    Args:
      name: of the dataset; the defects are those of some names.
      columns: its rows, x and y first in the observations.
    """
    if name.startswith("antmaze-medium-"):
        return _rewarded_elsewhere(columns)
    return _rewarded_once(columns) if name.startswith("antmaze-umaze-diverse-") else []


def _rewarded_elsewhere(columns: Columns) -> list[str]:
    """Rewards away from the goal, which SfBC (arXiv 2209.14548) takes away in antmaze-medium-play-v2."""
    rewarded = columns.rewards > 0
    away = rewarded & ~(columns.observations[:, :2] > _GOAL_FROM).all(axis=1)
    if not (count := int(away.sum())):
        return []
    return [
        f"{count:,} of {int(rewarded.sum()):,} rewarded rows are not at the goal, where x and y are above "
        f"{_GOAL_FROM:g}: a known defect of antmaze-medium-play-v2, which SfBC repairs by reward = terminal = 0 there; "
        "they are trained on as they are"
    ]


def _rewarded_once(columns: Columns) -> list[str]:
    """Goals that pay for one step, where D4RL's other AntMaze files pay for every step at the goal (D4RL issue 199)."""
    rewarded = np.flatnonzero(columns.rewards > 0)
    if len(rewarded) < 2 or (np.diff(rewarded) == 1).any():
        return []
    return [
        f"each of {len(rewarded):,} goals reached is one rewarded row, where D4RL's other AntMaze files reward every "
        "step at the goal: a known defect of antmaze-umaze-diverse (D4RL issue 199); it is trained on as it is"
    ]
