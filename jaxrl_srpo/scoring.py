"""Scores of members: rollouts of their policies beside training, rows of `evaluations.csv`, trajectories of mazes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo import evaluation
from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.evaluation import BackgroundEvaluator, Episodes, Rollouts
from jaxrl_srpo.population import act_members
from jaxrl_srpo.run_directory import DatasetFacts, RunDirectory
from jaxrl_srpo.stages import Stage
from jaxrl_srpo.sweep import Member

EVALUATION_SEED = 0
RECORDED_EPISODES = 20


@dataclasses.dataclass(frozen=True)
class _Job:
    """One evaluation under way."""

    stage: Stage
    members: Sequence[Member]
    step: int
    final: bool
    episodes: Future[Episodes]


class Scorer:
    """Evaluates members in their environments, in a background thread.

    Args:
      run: where the rows go.
      facts: datasets by name; members of datasets without an environment are passed over.
      load: (stage, members) -> results stacked, leaves [members, ...], for results that are already finished.
    """

    def __init__(
        self,
        run: RunDirectory,
        facts: Mapping[str, DatasetFacts],
        load: Callable[[Stage, Sequence[Member]], Any],
    ) -> None:
        self._run, self._load = run, load
        self._facts = {name: fact for name, fact in facts.items() if fact.environment is not None}
        self._background = BackgroundEvaluator()
        self._rollouts: tuple[Any, Rollouts] | None = None
        self._jobs: list[_Job] = []

    def close(self) -> None:
        """Stops the background thread and closes the environments."""
        self._background.close()
        if self._rollouts is not None:
            self._rollouts[1].close()

    def submit(self, stage: Stage, members: Sequence[Member], step: int, results: Any, *, final: bool) -> None:
        """Starts an evaluation of stacked results, after the one under way."""
        indices = [i for i, member in enumerate(members) if member.dataset in self._facts]
        if not indices:
            return
        self.wait()
        chosen = [members[i] for i in indices]
        act = self._act(stage, chosen, jax.tree.map(lambda x: x[np.asarray(indices)], results))
        record = final and all(self._environment(member).goal_task for member in chosen)
        episodes = self._background.submit(self._rollouts_of(chosen), act, record=record)
        self._jobs.append(_Job(stage, chosen, step, final, episodes))

    def wait(self, before: int | None = None) -> None:
        """Waits for evaluations (of steps below `before`, if given) and writes their rows."""
        waiting = [job for job in self._jobs if before is None or job.step < before]
        for job in waiting:
            self._write(job, job.episodes.result())
            self._jobs.remove(job)

    def resume(self, stage: Stage, members: Sequence[Member], step: int, results: Callable[[], Any]) -> None:
        """Evaluates a restored state if it was due and a kill came before its rows."""
        due = step % stage.interval(members[0].settings) == 0
        if due and not all(self._has(stage, member, step) for member in members if member.dataset in self._facts):
            self.submit(stage, members, step, results(), final=False)

    def finish(self, stage: Stage, members: Sequence[Member]) -> None:
        """Evaluates finished members that have no final row in this run directory."""
        total = stage.steps(members[0].settings)
        missing = [m for m in members if m.dataset in self._facts and not self._has(stage, m, total, final=True)]
        if missing:
            self.submit(stage, missing, total, self._load(stage, missing), final=True)
            self.wait()

    def _has(self, stage: Stage, member: Member, step: int, final: bool = False) -> bool:
        wanted = {name: str(value) for name, value in member.row(stage).items()} | {"step": str(step)}
        wanted |= {"final": "1"} if final else {}
        return any(all(row[name] == value for name, value in wanted.items()) for row in self._run.evaluations.rows())

    def _environment(self, member: Member) -> EnvironmentSpec:
        environment = self._facts[member.dataset].environment_spec
        assert environment is not None
        return environment

    def _rollouts_of(self, members: Sequence[Member]) -> Rollouts:
        """Environments of the members; kept while the same ones are asked for."""
        environments = [self._environment(member) for member in members]
        key = (environments, members[0].settings.episodes)
        if self._rollouts is None or self._rollouts[0] != key:
            if self._rollouts is not None:
                self._rollouts[1].close()
            self._rollouts = (key, Rollouts(environments, members[0].settings.episodes, EVALUATION_SEED))
        return self._rollouts[1]

    def _act(self, stage: Stage, members: Sequence[Member], results: Any) -> Callable[[np.ndarray], np.ndarray]:
        """One batched call for all members and episodes, from flat observations to the environments' units."""
        # Always on the CPU: a call on an accelerator would queue behind the chunk that trains meanwhile.
        device = jax.local_devices(backend="cpu")[0]
        policies = jax.device_put(stage.policy(results), device)
        first = members[0]
        act = stage.act(first.settings, first.spec)
        facts = [self._facts[member.dataset] for member in members]
        keys = jax.device_put(jnp.stack([jax.random.key(member.seed) for member in members]), device)
        fold = jax.jit(jax.vmap(jax.random.fold_in, (0, None)))
        steps = 0

        def call(observations: np.ndarray) -> np.ndarray:
            nonlocal steps
            steps += 1
            inputs = np.stack([fact.normalize(own) for fact, own in zip(facts, observations, strict=True)])
            actions = np.asarray(act_members(act, policies, jax.device_put(inputs, device), fold(keys, steps)))
            return np.stack([fact.scale(own) for fact, own in zip(facts, actions, strict=True)])

        return call

    def _write(self, job: _Job, episodes: Episodes) -> None:
        rows = []
        for i, member in enumerate(job.members):
            facts = self._facts[member.dataset]
            values = evaluation.scores(episodes, i, facts.reference_returns)
            successes = episodes.successes[i] if self._environment(member).goal_task else None
            rows.append(
                member.row(job.stage)
                | {
                    "algorithm": job.stage.algorithm,
                    "step": job.step,
                    "final": int(job.final),
                    "episodes": episodes.returns.shape[1],
                    "metric": values.metric,
                    "mean": f"{np.mean(values.values):.6g}",
                    "std": f"{np.std(values.values):.6g}",
                    "return_mean": f"{np.mean(episodes.returns[i]):.6g}",
                    "return_std": f"{np.std(episodes.returns[i]):.6g}",
                    "length_mean": f"{np.mean(episodes.lengths[i]):.6g}",
                    "success_rate": "" if successes is None else f"{np.mean(successes):.6g}",
                }
            )
        self._run.evaluations.append(rows)
        if episodes.observations is not None:
            self._save_trajectories(job, episodes)

    def _save_trajectories(self, job: _Job, episodes: Episodes) -> None:
        """Positions of the first seed's episodes, of its best member where there are several; for the maze pictures."""
        assert episodes.observations is not None
        for dataset in {member.dataset for member in job.members}:
            own = [i for i, member in enumerate(job.members) if member.dataset == dataset]
            seed = job.members[own[0]].seed
            best = max(
                (i for i in own if job.members[i].seed == seed), key=lambda i: float(episodes.successes[i].mean())
            )
            paths = episodes.observations[best][:RECORDED_EPISODES]
            self._run.add_trajectories(
                dataset, {f"{job.stage.algorithm}_{k}": path[:, :2] for k, path in enumerate(paths)}
            )
