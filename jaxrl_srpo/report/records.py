"""The plain files of a run directory, read into typed records, also while another process writes them."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io import sealed
from jaxrl_srpo.io.csv_log import CHECK, EVALUATION_COLUMNS, METRICS_COLUMNS, Tail
from jaxrl_srpo.io.files import expand_home
from jaxrl_srpo.report.sweep_file import check_sweep

DATA = "data"
"""What stands in the place of an algorithm for the dataset's own episodes."""
DATA_LABEL = "behavior data"
"""What tables and pictures call the dataset's own episodes."""
LEAST_EFFECTIVE_SAMPLE_SIZE = 0.02
"""Share of a batch, 0 to 1: some thousand updates after weights leave less in effect, Q has left its scale."""


class Result(NamedTuple):
    """A stage of a member, as the first columns of both CSV files name it; members with one result have one name.

    Attributes:
      stage: the stage's name.
      dataset: the dataset's name.
      seed: the member's seed.
      setting: hyperparameters that the sweep varies other than beta, as `expectile=0.9`, ';' between them; or empty.
      beta: temperature of SRPO; None where the result does not depend on it.
    """

    stage: str
    dataset: str
    seed: int
    setting: str
    beta: float | None


@dataclasses.dataclass(frozen=True)
class StageInfo:
    """What tables and pictures need to know of a stage; an entry of the list `stages` in `sweep.json`.

    Attributes:
      name: its name in the column `stage`.
      algorithm: the name of its policy in the column `algorithm` of `evaluations.csv`.
      label: what tables and learning curves call its policy.
      title: what the picture of losses calls the stage.
      online: whether its steps are environment steps.
      follows: algorithm whose learning an online stage continues; empty if it starts from scratch.
      cloning: algorithm of the cloning baseline drawn beside its learning curve; empty if there is none.
      curve: whether it is evaluated while it trains.
      acts: whether it gives a policy, as every stage of earlier versions did.
    """

    name: str
    algorithm: str
    label: str
    title: str
    online: bool
    follows: str
    cloning: str
    curve: bool
    acts: bool = True


_STAGE_FIELDS = dataclasses.fields(StageInfo)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One member evaluated once: a row of `evaluations.csv`.

    Attributes:
      stage: as in `Result`.
      algorithm: name of the policy.
      dataset: as in `Result`.
      seed: as in `Result`.
      setting: as in `Result`.
      beta: as in `Result`.
      step: updates of the stage done so far.
      final: whether it is the last evaluation of the stage.
      episodes: number of episodes.
      metric: `normalized_score`, `normalized_score_other_version` (D4RL's returns are of another version of the
        environment), `success_rate` or `return`.
      mean: mean of the metric over the episodes.
      std: standard deviation of the metric over the episodes.
      return_mean: mean undiscounted return.
      success_rate: fraction of episodes, 0 to 1, that reached the goal; None where there is no goal.
      again: number of the `jaxrl-srpo evaluate` that it comes from, from 1; 0 for those of training time.
    """

    stage: str
    algorithm: str
    dataset: str
    seed: int
    setting: str
    beta: float | None
    step: int
    final: bool
    episodes: int
    metric: str
    mean: float
    std: float
    return_mean: float
    success_rate: float | None
    again: int = 0

    @property
    def result(self) -> Result:
        """The stage of a member that the row is about."""
        return Result(self.stage, self.dataset, self.seed, self.setting, self.beta)


@dataclasses.dataclass(frozen=True)
class TrainingMetrics:
    """One member after one chunk of updates: a row of `metrics.csv`.

    Attributes:
      stage: as in `Result`.
      dataset: as in `Result`.
      seed: as in `Result`.
      setting: as in `Result`.
      beta: as in `Result`.
      step: updates of the stage done so far.
      updates_per_second: of all members of its population together; None if the file does not say.
      values: what the stage measured, losses for instance, by column name; blank cells are left out.
    """

    stage: str
    dataset: str
    seed: int
    setting: str
    beta: float | None
    step: int
    updates_per_second: float | None
    values: dict[str, float]

    @property
    def result(self) -> Result:
        """The stage of a member that the row is about."""
        return Result(self.stage, self.dataset, self.seed, self.setting, self.beta)


def read_sweep(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of `sweep.json`, which says what the run consists of.

    Raises:
      UserError: the directory, or `sweep.json` in it, is missing or unreadable.
    """
    path = expand_home(run_dir) / "sweep.json"
    # Unlike pathlib's, these take a name that is too long for one that does not exist.
    if not os.path.isfile(path):
        problem = "has no sweep.json" if os.path.isdir(path.parent) else "does not exist"
        raise UserError(
            f"{path.parent} is not a run directory, it {problem}; give the --out directory of a train command"
        )
    sweep = sealed.read(path)
    check_sweep(sweep, path)
    return sweep


def read_stages(sweep: Mapping[str, Any]) -> dict[str, StageInfo]:
    """The stages of a run by name, in the order in which they train.

    Args:
      sweep: contents of `sweep.json`; without a list `stages`, as earlier versions wrote it, those of all methods of
        this package are returned.

    Raises:
      UserError: an entry of the list lacks something or holds something else than it should.
    """
    entries = sweep.get("stages")
    if entries is None:
        # Only directories of earlier versions need to know what methods there are.
        from jaxrl_srpo.methods import stage_descriptions

        entries = stage_descriptions()
    try:
        known = [{"acts": True} | entry for entry in entries]
        stages = [StageInfo(**{field.name: entry[field.name] for field in _STAGE_FIELDS}) for entry in known]
    except (KeyError, TypeError) as error:
        raise UserError(f"sweep.json: 'stages' is not as train writes it ({error}); train again") from None
    for stage in stages:
        for field in _STAGE_FIELDS:
            value = getattr(stage, field.name)
            if not isinstance(value, bool if field.name in ("online", "curve", "acts") else str):
                raise UserError(
                    f"sweep.json: 'stages' is not as train writes it ({field.name} is {value!r}); train again"
                )
    return {stage.name: stage for stage in stages}


def read_labels(sweep: Mapping[str, Any]) -> dict[str, str]:
    """What tables and pictures call each algorithm, in the order of tables: the data, then the stages as they train.

    Raises:
      UserError: as `read_stages` does.
    """
    return {DATA: DATA_LABEL} | {stage.algorithm: stage.label for stage in read_stages(sweep).values()}


def beta_text(beta: float | None) -> str:
    """A beta as short as possible, but never the same text for different betas; empty for None."""
    if beta is None:
        return ""
    return f"{beta:g}" if float(f"{beta:g}") == beta else repr(beta)


def evaluations_tail(run_dir: str | os.PathLike[str]) -> Tail[Evaluation]:
    """Follows the rows of `evaluations.csv`."""
    required = frozenset(EVALUATION_COLUMNS) - {"return_std", "length_mean", "again", CHECK}
    return Tail(expand_home(run_dir) / "evaluations.csv", required, _evaluation)


def metrics_tail(run_dir: str | os.PathLike[str]) -> Tail[TrainingMetrics]:
    """Follows the rows of `metrics.csv`."""
    required = frozenset(METRICS_COLUMNS) - {"updates_per_second", CHECK}
    return Tail(expand_home(run_dir) / "metrics.csv", required, _training_metrics)


def read_evaluations(run_dir: str | os.PathLike[str]) -> list[Evaluation]:
    """The rows of `evaluations.csv` in the order of the file; none if there is no such file.

    Raises:
      UserError: a column is missing, or a cell is not what its column should hold.
    """
    return evaluations_tail(run_dir).read().rows


def read_metrics(run_dir: str | os.PathLike[str]) -> list[TrainingMetrics]:
    """The rows of `metrics.csv` in the order of the file; none if there is no such file.

    Raises:
      UserError: a column is missing, or a cell is not what its column should hold.
    """
    return metrics_tail(run_dir).read().rows


def last_rows(run_dir: str | os.PathLike[str]) -> dict[Result, TrainingMetrics]:
    """The last row of `metrics.csv` of every stage of every member; none if there is no such file.

    Raises:
      UserError: a column is missing, or a cell is not what its column should hold.
    """
    return {row.result: row for row in read_metrics(run_dir)}


def _number(path: pathlib.Path, line: int, column: str, text: str) -> float:
    """A cell as a number, or a message that says where it stands."""
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{path} line {line}: {column} is {text!r}, should be a number") from None


def _integer(path: pathlib.Path, line: int, column: str, text: str) -> int:
    """A cell as a whole number, or a message that says where it stands."""
    value = _number(path, line, column, text)
    if not (math.isfinite(value) and value == int(value)):
        raise UserError(f"{path} line {line}: {column} is {text!r}, should be a whole number")
    return int(value)


def _optional(path: pathlib.Path, line: int, column: str, text: str) -> float | None:
    """A cell as a number, None if blank."""
    return _number(path, line, column, text) if text.strip() else None


def _evaluation(path: pathlib.Path, line: int, cells: dict[str, str]) -> Evaluation:
    """One row of `evaluations.csv` from its text."""
    return Evaluation(
        stage=cells["stage"],
        algorithm=cells["algorithm"],
        dataset=cells["dataset"],
        seed=_integer(path, line, "seed", cells["seed"]),
        setting=cells["setting"],
        beta=_optional(path, line, "beta", cells["beta"]),
        step=_integer(path, line, "step", cells["step"]),
        final=_integer(path, line, "final", cells["final"]) == 1,
        episodes=_integer(path, line, "episodes", cells["episodes"]),
        metric=cells["metric"],
        mean=_number(path, line, "mean", cells["mean"]),
        std=_number(path, line, "std", cells["std"]),
        return_mean=_number(path, line, "return_mean", cells["return_mean"]),
        success_rate=_optional(path, line, "success_rate", cells["success_rate"]),
        again=_integer(path, line, "again", cells.get("again") or "0"),
    )


def _training_metrics(path: pathlib.Path, line: int, cells: dict[str, str]) -> TrainingMetrics:
    """One row of `metrics.csv` from its text."""
    values = {
        column: _number(path, line, column, text)
        for column, text in cells.items()
        if column not in METRICS_COLUMNS and text.strip()
    }
    return TrainingMetrics(
        stage=cells["stage"],
        dataset=cells["dataset"],
        seed=_integer(path, line, "seed", cells["seed"]),
        setting=cells["setting"],
        beta=_optional(path, line, "beta", cells["beta"]),
        step=_integer(path, line, "step", cells["step"]),
        updates_per_second=_optional(path, line, "updates_per_second", cells.get("updates_per_second", "")),
        values=values,
    )
