"""Trained policies of a run directory, ready to act."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.files import print_message
from jaxrl_srpo.methods.contract import Method, Stage
from jaxrl_srpo.report.records import Evaluation, Result, read_evaluations
from jaxrl_srpo.report.rows import last_evaluation
from jaxrl_srpo.runs.acting import CallablePolicy, HostAct, InUnits, act_on_host
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.setup import load_result
from jaxrl_srpo.runs.sweep import Member, stages_of
from jaxrl_srpo.runs.workers import own_methods


@dataclasses.dataclass(frozen=True)
class Policy(CallablePolicy):
    """A trained policy; call it with one observation or a batch of them.

    Attributes:
      member: the training run it comes from.
      environment: where it was evaluated; None if unknown.
      chosen_by: why it and no other member that the arguments of `load_policy` leave.
      observation_keys: entries of dictionary observations that make a vector; empty if the data had vectors.
    """

    member: Member
    environment: EnvironmentSpec | None
    chosen_by: str
    observation_keys: tuple[str, ...]
    _act: HostAct

    @property
    def observation_size(self) -> int:
        """Width of one observation."""
        return self.member.spec.observation_size


@dataclasses.dataclass(frozen=True)
class Found:
    """The member and the stage of a policy that is asked for.

    Attributes:
      run: its run directory.
      stage: gives the policy.
      member: the training run.
      chosen_by: why this member, in words.
    """

    run: RunDirectory
    stage: Stage
    member: Member
    chosen_by: str

    def policy(self) -> Any:
        """What acts, a pytree."""
        result = load_result(self.run, self.stage, self.member)
        return self.stage.make_policy(self.member.settings, self.member.spec, result)


def load_policy(run_dir: str | os.PathLike[str], **which: Any) -> Policy:
    """Loads one policy of a run, chosen by the arguments of `find`.

    Raises:
      UserError: if the run has no such finished member.
    """
    found = find(run_dir, **which)
    facts = found.run.facts()[found.member.dataset]
    act = InUnits(act_on_host(found.policy(), found.stage.act), facts.units)
    return Policy(found.member, facts.environment_spec, found.chosen_by, tuple(facts.observation_keys), act)


def find(
    run_dir: str | os.PathLike[str],
    dataset: str | None = None,
    seed: int | None = None,
    beta: float | None = None,
    algorithm: str | Method | None = None,
    artefacts: pathlib.Path | None = None,
    log: Callable[[str], None] | None = None,
    **values: float,
) -> Found:
    """One member of a run, whose policy is to act.

    Where the arguments leave several members, the one with the best last evaluation is taken (the first, if there
    are no evaluations), and a message says which: give `seed` and `beta` to be sure.

    Args:
      run_dir: run directory.
      dataset: name in the table.
      seed: of the member.
      beta: temperature of the member.
      algorithm: word of the policy in `evaluations.csv`: `srpo`, the baseline `iql` trained beside the critic, `awac`,
        its baseline `cloning`, and so on; or a method of a user's own. By default the last offline stage of the run's
        first member.
      artefacts: directory of finished stages, if the run used a shared one.
      log: receives the message; it goes to standard error by default.
      **values: other swept settings of the member, for instance `expectile=0.9`.

    Raises:
      UserError: if the run has no such finished member.
    """
    own = own_methods([algorithm]) if isinstance(algorithm, Method) else []
    run = RunDirectory(pathlib.Path(run_dir), artefacts, own)
    members = run.members()
    stage = _stage(members, algorithm)
    wanted = {"dataset": dataset, "seed": seed, "beta": beta} | values
    _check_names(members, wanted)
    members = [member for member in members if stage in member.stages and _matches(member, wanted)]
    finished = [member for member in members if run.has_result(stage, member)]
    if not finished:
        asked = ", ".join(f"{name}={value}" for name, value in wanted.items() if value is not None)
        state = "is not finished" if members else "does not exist"
        raise UserError(f"{run_dir}: a member with {asked or stage.algorithm} {state}; sweep.json lists the members")
    member, chosen_by = _choose(run, stage, finished)
    if len(finished) > 1:
        (log or print_message)(f"{run_dir}: loaded {member.name(stage)}, {chosen_by}")
    return Found(run, stage, member, chosen_by)


def _choose(run: RunDirectory, stage: Stage, finished: Sequence[Member]) -> tuple[Member, str]:
    """The member of the best last evaluation, and the choice in words."""
    if len(finished) == 1:
        return finished[0], "the only one that was asked for"
    evaluations = _last_evaluations(run.path)
    scored = [member for member in finished if member.result(stage) in evaluations]
    if not scored:
        return finished[0], f"the first of {len(finished)}, none of which was evaluated"
    best = max(scored, key=lambda member: evaluations[member.result(stage)].mean)
    row = evaluations[best.result(stage)]
    return best, (
        f"the best of {len(finished)} by the last evaluation: {row.metric} {row.mean:g} over {row.episodes} episodes"
    )


def _stage(members: Sequence[Member], algorithm: str | Method | None) -> Stage:
    """The stage whose policy is asked for."""
    if algorithm is None or isinstance(algorithm, Method):
        method = algorithm or members[0].method
        return [stage for stage in method.stages or method.all_stages if stage.acts][-1]
    stages = {stage.algorithm: stage for stage in stages_of(members) if stage.acts}
    if algorithm not in stages:
        raise UserError(f"algorithm {algorithm}: choose one of {', '.join(sorted(stages))}")
    return stages[algorithm]


def _check_names(members: Sequence[Member], wanted: dict[str, Any]) -> None:
    known = {"dataset", "seed", "beta"}.union(*(member.settings for member in members))
    if unknown := wanted.keys() - known:
        raise UserError(f"{', '.join(sorted(unknown))}: no such setting; one of {', '.join(sorted(known))}")


def _matches(member: Member, wanted: dict[str, Any]) -> bool:
    own = {"dataset": member.dataset, "seed": member.seed} | dict(member.settings)
    return all(value is None or own.get(name) == value for name, value in wanted.items())


def _last_evaluations(run_dir: pathlib.Path) -> dict[Result, Evaluation]:
    """The last evaluation of every stage of every member."""
    rows: dict[Result, list[Evaluation]] = {}
    for row in read_evaluations(run_dir):
        rows.setdefault(row.result, []).append(row)
    return {result: last_evaluation(own) for result, own in rows.items()}
