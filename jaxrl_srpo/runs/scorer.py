"""Scores of members: rollouts of their policies beside training, rows of `evaluations.csv`, trajectories of mazes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.data.facts import DatasetFacts
from jaxrl_srpo.envs import rollouts
from jaxrl_srpo.envs.rollouts import BackgroundEvaluator, Episodes, Rollouts
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Stage
from jaxrl_srpo.population.vectorize import act_members
from jaxrl_srpo.report.mazes import has_map
from jaxrl_srpo.runs.leases import Lease
from jaxrl_srpo.runs.run_directory import RunDirectory
from jaxrl_srpo.runs.sweep import Member

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
    again: int
    lease: Lease | None


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
        self._kept: list[Lease] = []

    def close(self) -> None:
        """Stops the background thread, closes the environments and releases the leases that it keeps."""
        self._background.close()
        self._jobs.clear()
        self._release()
        if self._rollouts is not None:
            self._rollouts[1].close()

    def submit(
        self, stage: Stage, members: Sequence[Member], step: int, results: Any, *, final: bool, again: int = 0
    ) -> None:
        """Starts an evaluation of stacked results, after the one under way; `again` numbers those after training."""
        indices = [i for i, member in enumerate(members) if member.dataset in self._facts]
        if not stage.acts or not indices:
            return
        self.wait()
        chosen = [members[i] for i in indices]
        act = self._act(stage, chosen, jax.tree.map(lambda x: x[np.asarray(indices)], results))
        record = final and all(self._is_drawn(member) for member in chosen)
        episodes = self._background.submit(self._rollouts_of(chosen), act, record=record)
        self._jobs.append(_Job(stage, chosen, step, final, episodes, again, self._run.lease))

    def wait(self, before: int | None = None) -> bool:
        """Waits for evaluations and writes their rows.

        Args:
          before: only those of the work under way, of steps below this one; None for all.

        Returns:
          Whether there were any.
        """
        own = self._run.lease
        waiting = [job for job in self._jobs if before is None or (job.step < before and job.lease is own)]
        for job in waiting:
            self._write(job, job.episodes.result())
            self._jobs.remove(job)
        self._release()
        return bool(waiting)

    def drop(self, lease: Lease | None) -> None:
        """Stops the evaluations under way of work that another worker has now; nothing is written of them."""
        if any(job.lease is lease for job in self._jobs):
            self._background.close()
            self._background = BackgroundEvaluator()
            self._jobs.clear()

    def keep(self, lease: Lease) -> bool:
        """Whether an evaluation of this lease's work is under way; if so, its end releases the lease."""
        kept = any(job.lease is lease for job in self._jobs)
        if kept:
            self._kept.append(lease)
        return kept

    def resume(self, stage: Stage, members: Sequence[Member], step: int, results: Any) -> None:
        """Evaluates a restored state if it was due and a kill came before its rows."""
        due = step % stage.interval(members[0].settings) == 0
        if due and self._without_row(stage, members, step):
            self.submit(stage, members, step, results, final=False)

    def unfinished(self, stage: Stage, members: Sequence[Member]) -> list[Member]:
        """Members that have no final row in this run directory, and none under way."""
        if not stage.acts or not members:
            return []
        under_way = [member for job in self._jobs if job.final and job.stage is stage for member in job.members]
        missing = self._without_row(stage, members, stage.steps(members[0].settings), final="1")
        return [member for member in missing if member not in under_way]

    def finish(self, stage: Stage, members: Sequence[Member]) -> None:
        """Evaluates finished members that have no final row in this run directory."""
        missing = self.unfinished(stage, members)
        if missing:
            total = stage.steps(members[0].settings)
            self.submit(stage, missing, total, self._load(stage, missing), final=True)
            self.wait()

    def evaluate_again(self, stage: Stage, members: Sequence[Member], number: int) -> None:
        """Evaluates finished members once more, whatever rows they have; `number` is from 1."""
        total = stage.steps(members[0].settings)
        self.submit(stage, members, total, self._load(stage, members), final=True, again=number)
        self.wait()

    def _without_row(self, stage: Stage, members: Sequence[Member], step: int, **wanted: str) -> list[Member]:
        """Members that can be evaluated and have no row of that step (and of the wanted cells)."""
        wanted = {"step": str(step)} | wanted
        rows = [row for row in self._run.evaluations.rows() if wanted.items() <= row.items()]
        found = {tuple(row[name] for name in members[0].row(stage)) for row in rows}
        own = [member for member in members if member.dataset in self._facts]
        return [member for member in own if tuple(map(str, member.row(stage).values())) not in found]

    def _is_drawn(self, member: Member) -> bool:
        return has_map(self._environment(member))

    def _environment(self, member: Member) -> EnvironmentSpec:
        environment = self._facts[member.dataset].environment_spec
        assert environment is not None
        return environment

    def _rollouts_of(self, members: Sequence[Member]) -> Rollouts:
        """Environments of the members; kept while the same ones are asked for."""
        environments = [self._environment(member) for member in members]
        key = (environments, members[0].settings["episodes"])
        if self._rollouts is None or self._rollouts[0] != key:
            if self._rollouts is not None:
                self._rollouts[1].close()
                self._rollouts = None
            self._rollouts = (key, Rollouts(environments, members[0].settings["episodes"], EVALUATION_SEED))
        return self._rollouts[1]

    def _act(self, stage: Stage, members: Sequence[Member], results: Any) -> Callable[[np.ndarray], np.ndarray]:
        """One batched call for all members and episodes, from flat observations to the environments' units."""
        # Beside training on an accelerator, a call there would queue behind the chunk under way.
        device = acting_device()
        first = members[0]
        policies = jax.device_put(stage.make_policy(first.settings, first.spec, results), device)
        facts = [self._facts[member.dataset] for member in members]
        keys = jax.device_put(jnp.stack([jax.random.key(member.seed_of(stage)) for member in members]), device)
        fold = jax.jit(jax.vmap(jax.random.fold_in, (0, None)))
        batched = device.platform != "cpu"
        units = [fact.units for fact in facts]
        steps = 0

        def call(observations: np.ndarray) -> np.ndarray:
            nonlocal steps
            steps += 1
            inputs = np.stack([one.normalize_observations(own) for one, own in zip(units, observations, strict=True)])
            placed = jax.device_put(inputs, device)
            actions = np.asarray(act_members(stage.act, policies, placed, fold(keys, steps), batched))
            return np.stack([one.denormalize_actions(own) for one, own in zip(units, actions, strict=True)])

        return call

    def _write(self, job: _Job, episodes: Episodes) -> None:
        rows = []
        for i, member in enumerate(job.members):
            facts = self._facts[member.dataset]
            values = rollouts.scores(episodes, i, facts.reference_returns)
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
                    "again": job.again or "",
                }
            )
        with self._run.writing(job.lease) as own:
            if not own:
                return
            self._run.evaluations.append(rows)
            if episodes.observations is not None:
                self._save_trajectories(job, episodes)

    def _release(self) -> None:
        """Releases the leases that are kept and of whose work nothing is under way."""
        for lease in [one for one in self._kept if all(job.lease is not one for job in self._jobs)]:
            self._kept.remove(lease)
            lease.release()

    def _save_trajectories(self, job: _Job, episodes: Episodes) -> None:
        """Positions of the first seed's episodes, of its best member where there are several; for the maze pictures."""
        assert episodes.observations is not None
        # Of all members of the run: other populations may have other seeds of the dataset.
        first_seeds = {member.dataset: member.seed for member in reversed(self._run.members())}
        for dataset, seed in first_seeds.items():
            own = [i for i, member in enumerate(job.members) if (member.dataset, member.seed) == (dataset, seed)]
            if not own:
                continue
            best = max(own, key=lambda i: float(episodes.successes[i].mean()))
            paths = episodes.observations[best][:RECORDED_EPISODES]
            self._run.add_trajectories(
                dataset, {f"{job.stage.algorithm}_{k}": path[:, :2] for k, path in enumerate(paths)}
            )


def acting_device() -> jax.Device:
    """The CPU where JAX may use it beside an accelerator, else the default device."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def usable_environments(
    run: RunDirectory,
    facts: Sequence[DatasetFacts],
    required: bool,
    log: Callable[[str], None],
    online: bool = False,
) -> dict[str, DatasetFacts]:
    """The datasets whose environment can be made here; the others are named in a message.

    Raises:
      UserError: if the data do not fit their environment, or `required` and one cannot be made; to learn `online` the
        bounds of actions must be equal too.
    """
    usable: dict[str, DatasetFacts] = {}
    for fact in facts:
        try:
            environment = _environment_of(fact)
        except UserError as error:
            if required:
                raise
            log(f"not evaluated: {error}; `jaxrl-srpo evaluate {run.path}` can do it later")
            continue
        _check_fits(fact, environment, log, online)
        environment.close()
        usable[fact.name] = fact
    return usable


def _environment_of(facts: DatasetFacts) -> Any:
    from jaxrl_srpo.envs.make import make_environment

    if facts.environment_spec is None:
        raise UserError(f"{facts.name}: no environment is known; give one with --env=ID")
    return make_environment(facts.environment_spec)


def _check_fits(facts: DatasetFacts, environment: Any, log: Callable[[str], None], online: bool) -> None:
    """Refuses other sizes, and tells of other bounds: a file without bounds is taken to have -1 and 1."""
    name, observations, actions = environment.spec.id, environment.observation_space, environment.action_space
    if (observations.shape, actions.shape) != ((facts.observation_size,), (facts.action_size,)):
        raise UserError(
            f"{name} is not the environment of {facts.name}: its observations and actions have shapes "
            f"{observations.shape} and {actions.shape}, those of the data widths {facts.observation_size} and "
            f"{facts.action_size}; name the data's own environment with --env"
        )
    if not (np.allclose(actions.low, facts.action_low) and np.allclose(actions.high, facts.action_high)):
        bounds = (
            f"{facts.name}: its actions lie in [{min(facts.action_low):g}, {max(facts.action_high):g}], those of "
            f"{name} in [{actions.low.min():g}, {actions.high.max():g}]"
        )
        if online:
            raise UserError(f"{bounds}; to learn online give the file the environment's action_low and action_high")
        log(f"{bounds}; policies keep to the data's bounds")
