"""Many copies of one MuJoCo model, stepped by threads; Gymnasium's observations and rewards computed for all at once.

MuJoCo's own `mujoco.rollout` is not used: it takes the constraint solver's starting point (`qacc_warmstart`) but does
not give it back, and without it a HalfCheetah's coordinates are up to 0.2 off after 150 steps. `mj_step` on a thread's
own data is as fast, and the same bit for bit.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_srpo.data.dataset import EnvironmentSpec
from jaxrl_srpo.envs import ogbench, tasks
from jaxrl_srpo.envs.make import find_registered, keys_of, make_environment
from jaxrl_srpo.envs.simulator import (
    GymnasiumSimulator,
    Start,
    Threads,
    Transition,
    VectorSimulator,
    action_bounds,
    default_workers,
    most_workers,
    time_limit,
)
from jaxrl_srpo.errors import UserError

if TYPE_CHECKING:
    import gymnasium
    import mujoco


def make_simulator(spec: EnvironmentSpec, count: int, workers: int | None = None) -> VectorSimulator:
    """The fastest simulator of `count` environments that gives Gymnasium's observations, rewards and ends.

    Args:
      spec: their kind.
      count: N.
      workers: threads that step; None leaves them to `simulator.default_workers`.

    Raises:
      UserError: the environment cannot be made or is not made of vectors.
    """
    environment = make_environment(spec, lean=True)
    size = _action_size(spec, environment)
    task = _find_task(spec, environment, count)
    if task is not None:
        return MujocoSimulator(environment, task, count, workers or default_workers(environment))
    if ogbench.is_single_task(spec):
        places = min(workers or most_workers(), count)
        return ogbench.OGBenchSimulator([environment, *(make_environment(spec) for _ in range(places - 1))], count)
    spec = dataclasses.replace(spec, observation_keys=keys_of(environment))
    environments = [environment, *(make_environment(spec, lean=True) for _ in range(count - 1))]
    return GymnasiumSimulator(environments, size, workers)


class MujocoSimulator:
    """A `VectorSimulator` with one model for all environments.

    Args:
      environment: one Gymnasium environment of the kind. It gives the model and plays the resets.
      task: what its class adds to the physics.
      count: N.
      workers: threads.
    """

    def __init__(
        self, environment: "gymnasium.Env[np.ndarray, Any]", task: tasks.Task, count: int, workers: int
    ) -> None:
        shapes = environment.observation_space.shape, environment.action_space.shape
        assert shapes[0] is not None
        assert shapes[1] is not None
        self.observation_size, self.action_size = shapes[0][0], shapes[1][0]
        self._environment, self._task = environment, task
        self._physics = ModelCopies(tasks.simulation(environment.unwrapped), task.recipe, count, workers)
        self.action_low, self.action_high = action_bounds(environment)
        self.max_episode_steps = time_limit(environment)
        self._steps = np.zeros(count, np.int64)

    def reset(self, seeds: Sequence[int], rows: np.ndarray | None = None) -> Start:
        """See `VectorSimulator`."""
        chosen = np.arange(len(self._steps)) if rows is None else rows
        successes = np.zeros(len(self._steps), bool)
        # Evaluations start all members from the same seeds, so that there are far fewer resets than environments.
        for seed in np.unique(seeds):
            own = chosen[np.asarray(seeds) == seed]
            self._environment.reset(seed=int(seed))
            self._physics.start(own)
            successes[own] = self._task.start(own, self._environment.unwrapped)
        self._steps[chosen] = 0
        return Start(self._observe(chosen), successes[chosen])

    def step(self, rows: np.ndarray, actions: np.ndarray) -> Transition:
        """See `VectorSimulator`."""
        outcome = self._task.step(self._physics, rows, actions)
        self._steps[rows] += 1
        limit = self.max_episode_steps
        truncated = np.zeros(len(rows), bool) if limit is None else self._steps[rows] >= limit
        return Transition(self._observe(rows), outcome.rewards, outcome.terminated, truncated, outcome.successes)

    def close(self) -> None:
        """See `VectorSimulator`."""
        self._physics.close()
        self._environment.close()

    def _observe(self, rows: np.ndarray) -> np.ndarray:
        return self._task.observe(self._physics, rows).astype(np.float32)


class ModelCopies:
    """N states of one MuJoCo model as rows of a matrix, which threads load, step and store.

    A row is MuJoCo's integration state, which holds all that the next step depends on, the solver's starting point
    included; so any thread's data can step any row, with the same result to the last bit.

    Args:
      simulation: the Gymnasium environment that holds the model; its data are what `start` copies.
      recipe: what the task needs.
      count: N.
      workers: threads.

    Attributes:
      qpos: [N, nq] positions, a view.
      qvel: [N, nv] velocities, a view.
      places: [N, 2] horizontal position of the recipe's body, as of MuJoCo's last evaluation of the kinematics; zeros
        without one.
      forces: [N, bodies, 6] external forces on the bodies; zeros unless the recipe asks for them.
      seconds_per_step: simulated time of one step.
    """

    def __init__(self, simulation: Any, recipe: tasks.Recipe, count: int, workers: int) -> None:
        import mujoco

        self._mujoco, self._simulation, self._recipe = mujoco, simulation, recipe
        self._model: mujoco.MjModel = simulation.model
        self._datas = [mujoco.MjData(self._model) for _ in range(workers)]
        self._threads = Threads(workers)
        self.seconds_per_step = float(simulation.dt)
        self._kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self._states = np.zeros((count, mujoco.mj_stateSize(self._model, self._kind)))
        self.qpos = self._states[:, self._columns(int(mujoco.mjtState.mjSTATE_QPOS))]
        self.qvel = self._states[:, self._columns(int(mujoco.mjtState.mjSTATE_QVEL))]
        self.places = np.zeros((count, 2))
        self.forces = np.zeros((count, self._model.nbody, 6))

    def start(self, rows: np.ndarray) -> None:
        """Copies the state of the Gymnasium environment into `rows`."""
        data = self._simulation.data
        state = np.empty(self._states.shape[1])
        self._mujoco.mj_getState(self._model, data, state, self._kind)
        self._states[rows] = state
        if self._recipe.body is not None:
            self.places[rows] = data.xpos[self._recipe.body, :2]
        if self._recipe.forces:
            self.forces[rows] = data.cfrc_ext

    def step(self, rows: np.ndarray, controls: np.ndarray) -> None:
        """Steps `rows` [n] with controls [n, nu], `frame_skip` physics steps each."""

        def work(thread: int, own: np.ndarray) -> None:
            self._advance(self._datas[thread], rows[own], controls[own])

        self._threads.share(work, len(rows))

    def close(self) -> None:
        """Ends the threads."""
        self._threads.close()

    def _advance(self, data: "mujoco.MjData", rows: np.ndarray, controls: np.ndarray) -> None:
        """Steps `rows` one after another; only MuJoCo's own work runs outside Python's lock."""
        mujoco, model, recipe, kind = self._mujoco, self._model, self._recipe, self._kind
        frames = self._simulation.frame_skip
        load, store, step = mujoco.mj_setState, mujoco.mj_getState, mujoco.mj_step
        control, place = data.ctrl, None if recipe.body is None else data.xpos[recipe.body, :2]
        for row, own in zip(rows.tolist(), controls, strict=True):
            state = self._states[row]
            load(model, data, state, kind)
            if recipe.settle:
                mujoco.mj_forward(model, data)
            control[:] = own
            step(model, data, frames)
            store(model, data, state, kind)
            if place is not None:
                self.places[row] = place
            if recipe.forces:
                mujoco.mj_rnePostConstraint(model, data)
                self.forces[row] = data.cfrc_ext

    def _columns(self, part: int) -> slice:
        """Where a part of the state lies in a row: parts follow one another in the order of their bits."""
        first = self._mujoco.mj_stateSize(self._model, self._kind & (part - 1))
        return slice(first, first + self._mujoco.mj_stateSize(self._model, part))


def _find_task(spec: EnvironmentSpec, environment: "gymnasium.Env", count: int) -> tasks.Task | None:
    """The task of `count` environments like this one, or None where only Gymnasium knows it."""
    registered = find_registered(spec.id)
    if registered.additional_wrappers or spec.wrappers or keys_of(environment) not in tasks.OBSERVATION_KEYS:
        return None
    return tasks.find(str(registered.entry_point), registered.kwargs | spec.kwargs, environment.unwrapped, count)


def _action_size(spec: EnvironmentSpec, environment: "gymnasium.Env[np.ndarray, Any]") -> int:
    shape = environment.action_space.shape
    if not isinstance(getattr(environment.action_space, "low", None), np.ndarray) or shape is None or len(shape) != 1:
        environment.close()
        raise UserError(f"environment {spec.id} has actions {environment.action_space}; expected a box with one axis")
    return shape[0]
