"""Minari datasets by id, through the `minari` package, which is imported only when one is asked for."""

import dataclasses
import logging
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrl_srpo.data import d4rl, recording, validation
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec, ReferenceReturns, WrapperSpec
from jaxrl_srpo.data.fingerprint import fingerprint
from jaxrl_srpo.data.minari_files import (
    environment_in,
    read_metadata,
    read_metadata_in,
)
from jaxrl_srpo.data.minari_store import open_dataset
from jaxrl_srpo.data.observations import flatten_observation, observation_keys
from jaxrl_srpo.data.reading import readable, require_text
from jaxrl_srpo.errors import DatasetError, UserError

_LOG = logging.getLogger(__name__)
_COLUMNS = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")


def read_minari(
    dataset_id: str,
    name: str | None = None,
    *,
    env: str | None = None,
    allow_invalid: bool = False,
    env_time_limit: int | None = None,
) -> Dataset:
    """Reads a Minari dataset that is on this machine; the network is not touched.

    Episodes hold T + 1 observations, so every step has its s' and none is dropped. `terminals` are terminations; an
    episode that was truncated counts as a time-out. A last episode that has neither flag was cut short, like the one
    under way when a replay buffer ends; it has no return unless it is the only one. Dictionary observations become
    vectors by `observation_keys` of the whole dataset.

    Args:
      dataset_id: for instance `D4RL/door/human-v2`.
      name: what tables call it; default: the id.
      env: Gymnasium id that overrides the environment in the metadata.
      allow_invalid: log what validation finds instead of raising.
      env_time_limit: time limit of `env` in steps, by which terminations that are time limits are recognized.

    Returns:
      The dataset; environment and reference returns come from the metadata, where the evaluation environment
      goes before the one of collection.

    Raises:
      DatasetError: Minari is not installed, the dataset is not on this machine, its spaces are not boxes, or it
        fails validation.
    """
    require_text("the id of a dataset", dataset_id)
    stored, metadata = open_dataset(dataset_id)
    return _read(stored, metadata, dataset_id, name, env, allow_invalid, env_time_limit)


def is_object(value: object) -> bool:
    """Whether a value is a `minari.MinariDataset`; nobody has one who has not imported Minari."""
    minari = sys.modules.get("minari")
    return minari is not None and isinstance(value, minari.MinariDataset)


def from_object(
    stored: Any, *, env: str | None = None, allow_invalid: bool = False, env_time_limit: int | None = None
) -> Dataset:
    """The dataset of a `minari.MinariDataset` that a program holds: all episodes, or those that it filtered.

    Args:
      stored: Minari's object; its id is the dataset's name.
      env: see `read_minari`; likewise the others.

    Raises:
      DatasetError: as `read_minari`.
    """
    dataset_id, metadata = _metadata_of(stored)
    return _read(stored, metadata, dataset_id, None, env, allow_invalid, env_time_limit)


def entry_point_of(stored: Any) -> str | None:
    """`entry_point` for a `minari.MinariDataset`.

    Raises:
      DatasetError: as `from_object`.
    """
    dataset_id, metadata = _metadata_of(stored)
    return _entry_point(metadata, dataset_id)


def _metadata_of(stored: Any) -> tuple[str, dict[str, Any]]:
    """Id and metadata of Minari's object; its steps are those of the episodes that it was filtered to."""
    dataset_id = require_text("the id of a dataset", stored.id)
    metadata = read_metadata_in(pathlib.Path(stored.storage.data_path), dataset_id)
    with readable(f"Minari dataset {dataset_id!r}"):
        return dataset_id, metadata | {"total_steps": int(stored.total_steps)}


def _read(
    stored: Any,
    metadata: Mapping[str, Any],
    dataset_id: str,
    name: str | None,
    env: str | None,
    allow_invalid: bool,
    env_time_limit: int | None,
) -> Dataset:
    """See `read_minari`; of Minari's own object and its metadata."""
    _refuse_other_actions(stored, dataset_id)
    recorded = _recorded(stored, dataset_id)
    keys = _observation_keys(stored, recorded, dataset_id)
    episodes = _read_episodes(recorded, keys, len(stored.action_space.low), dataset_id)
    observations, actions, rewards, following, terminals, truncations = (
        np.concatenate(column) for column in zip(*episodes, strict=True)
    )
    lengths = np.array([len(episode[2]) for episode in episodes], np.int64)
    ends = np.zeros(len(rewards), bool)
    ends[np.cumsum(lengths) - 1] = True
    low, high = _action_bounds(stored, dataset_id, actions)
    findings = validation.validate(
        dataset_id,
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminals=terminals,
        ends=ends,
        next_observations=following,
        action_low=low,
        action_high=high,
        allow_invalid=allow_invalid,
    )
    doubts = [*_flags_inside(terminals | truncations, ends), *_lost_steps(len(rewards), metadata["total_steps"])]
    findings += validation.report(dataset_id, doubts, allow_invalid)
    own = _environment(metadata, dataset_id)
    spec = d4rl.environment_spec(env) if env else own
    if spec is not None:
        spec = dataclasses.replace(spec, observation_keys=keys)
    by_time = int((truncations & ~terminals & ends).sum())
    limit = env_time_limit or (spec.max_episode_steps if spec else None)
    merged = recording.merged_ends(lengths[terminals[ends]], by_time, limit, d4rl.base_id(spec.id) if spec else None)
    lines = (*findings, *([f"{dataset_id}: {merged}"] if merged else []))
    for line in lines:
        _LOG.warning("%s", line)
    with np.errstate(over="ignore"):
        transitions = (observations, actions, rewards.astype(np.float32), following, terminals)
    returns = np.add.reduceat(rewards, np.cumsum(lengths) - lengths)
    complete = slice(None if len(lengths) == 1 or terminals[-1] or truncations[-1] else -1)
    return Dataset(
        name or dataset_id,
        dataset_id,
        *transitions,
        episode_ends=ends,
        episode_returns=returns[complete],
        episode_lengths=lengths[complete],
        timeouts=by_time,
        action_low=low,
        action_high=high,
        fingerprint=fingerprint(*transitions, low, high),
        family=_family(dataset_id, spec),
        environment=spec,
        reference=_reference(metadata, dataset_id, other_version=bool(spec and own and spec.id != own.id)),
        observation_keys=keys,
        warnings=lines,
    )


def entry_point(dataset_id: str) -> str | None:
    """The entry point that the metadata of a dataset on this machine give for its environment; nothing runs it.

    Raises:
      DatasetError: as `read_minari`.
    """
    return _entry_point(read_metadata(dataset_id), dataset_id)


def _entry_point(metadata: Mapping[str, Any], dataset_id: str) -> str | None:
    spec = environment_in(metadata, dataset_id)
    found = None if spec is None else spec.get("entry_point")
    return found if isinstance(found, str) else None


def _refuse_other_actions(stored: Any, dataset_id: str) -> None:
    """Refuses action spaces that are no box of one axis."""
    space = stored.action_space
    low = getattr(space, "low", None)
    if low is None or low.ndim != 1:
        raise DatasetError(f"{dataset_id}: action space {space} is not a box of one axis; only those can be trained on")
    if low.dtype.kind != "f":
        raise DatasetError(f"{dataset_id}: action space {space} is discrete; only continuous actions can be trained on")


def _action_bounds(stored: Any, dataset_id: str, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds [action_size] each: the space's, and where it has none the range of `actions` [N, action_size]."""
    with np.errstate(over="ignore"):
        low, high = stored.action_space.low.astype(np.float32), stored.action_space.high.astype(np.float32)
    low = np.where(np.isfinite(low), low, np.fmin.reduce(actions, axis=0))
    high = np.where(np.isfinite(high), high, np.fmax.reduce(actions, axis=0))
    validation.require_bounds(dataset_id, low, high)
    return low, high


def _recorded(stored: Any, dataset_id: str) -> list[Any]:
    """All episodes as Minari's own objects."""
    if not len(stored):
        raise DatasetError(f"{dataset_id}: the Minari dataset has no episodes")
    # Minari opens all files of Arrow's at once.
    with readable(f"Minari dataset {dataset_id!r}"):
        source = stored.iterate_episodes()
    episodes = []
    for index in range(len(stored)):
        with readable(f"{dataset_id}, episode {index}"):
            episodes.append(next(source))
    return episodes


def _observation_keys(stored: Any, episodes: Sequence[Any], dataset_id: str) -> tuple[str, ...]:
    """The entries of dictionary observations that make a vector, by all episodes; none for vectors."""
    if not isinstance(getattr(stored.observation_space, "spaces", None), Mapping):
        return ()
    try:
        with readable(f"Minari dataset {dataset_id!r}"):
            return observation_keys(stored.observation_space, [episode.observations for episode in episodes])
    except UserError as error:
        raise DatasetError(f"{dataset_id}: {error}") from error


def _read_episodes(
    recorded: Sequence[Any], keys: Sequence[str], action_size: int, dataset_id: str
) -> list[tuple[np.ndarray, ...]]:
    """All episodes, as `_read_episode` gives them, of one width."""
    episodes: list[tuple[np.ndarray, ...]] = []
    width = None
    for index, one in enumerate(recorded):
        where = f"{dataset_id}, episode {index}"
        with readable(where), np.errstate(over="ignore"):
            _require_kinds(where, one.observations)
            episode = _read_episode(one, keys, dataset_id)
        validation.require_fields(where, dict(zip(_COLUMNS, episode, strict=True)), _COLUMNS)
        width = width or episode[0].shape[1]
        if (episode[0].shape[1], episode[1].shape[1]) != (width, action_size):
            raise DatasetError(
                f"{where}: observations have width {episode[0].shape[1]} and actions {episode[1].shape[1]}; expected "
                f"{width}, as in the first episode, and {action_size}, as the action space has"
            )
        episodes.append(episode)
    return episodes


def _require_kinds(where: str, observations: Any) -> None:
    """Refuses arrays that NumPy would make numbers of, such as strings of digits, or of which it would lose a part."""
    for values in observations.values() if isinstance(observations, Mapping) else [observations]:
        if isinstance(values, Mapping):
            _require_kinds(where, values)
        elif isinstance(values, np.ndarray):
            validation.require_numbers(where, {"observations": values})


def _flags_inside(flags: np.ndarray, ends: np.ndarray) -> list[str]:
    """A message on the first step that terminations or truncations mark inside an episode."""
    rows = np.flatnonzero(flags & ~ends)
    if not len(rows):
        return []
    episode = int(np.cumsum(ends)[rows[0]])
    return [
        f"terminations or truncations mark a step of episode {episode} that is not its last one ({len(rows)} rows in "
        "all); an episode ends there"
    ]


def _lost_steps(found: int, expected: int) -> list[str]:
    """A message where Minari gives other steps than the metadata say there are."""
    return [] if found == expected else [f"the metadata say {expected} steps, the episodes have {found}"]


def _read_episode(episode: Any, keys: Sequence[str], dataset_id: str) -> tuple[np.ndarray, ...]:
    """One episode as observations, actions, rewards, next observations, terminations and truncations of T steps."""
    if not isinstance(episode.observations, Mapping | np.ndarray) or not isinstance(episode.actions, np.ndarray):
        raise DatasetError(f"{dataset_id}, episode {episode.id}: only array or dictionary observations can be read")
    observations = flatten_observation(episode.observations, keys)
    numbers = {
        "observations": observations,
        "actions": episode.actions,
        "rewards": validation.per_step(np.asarray(episode.rewards)),
        "terminals": validation.per_step(np.asarray(episode.terminations)),
        "timeouts": validation.per_step(np.asarray(episode.truncations)),
    }
    validation.require_numbers(f"{dataset_id}, episode {episode.id}", numbers)
    steps = len(episode.rewards)
    if observations.ndim != 2 or episode.actions.ndim != 2:
        raise DatasetError(
            f"{dataset_id}, episode {episode.id}: observations have shape {observations.shape} and actions "
            f"{episode.actions.shape}; expected one vector per step"
        )
    if steps == 0 or len(observations) != steps + 1 or len(episode.actions) != steps:
        raise DatasetError(
            f"{dataset_id}, episode {episode.id}: {len(observations)} observations, {len(episode.actions)} actions and "
            f"{steps} rewards; expected T + 1, T and T"
        )
    return (
        observations[:-1],
        episode.actions.astype(np.float32),
        numbers["rewards"].astype(np.float64),
        observations[1:],
        numbers["terminals"].astype(bool),
        numbers["timeouts"].astype(bool),
    )


def _environment(metadata: Mapping[str, Any], dataset_id: str) -> EnvironmentSpec | None:
    """The environment for evaluation in the metadata, else the one of collection."""
    spec = environment_in(metadata, dataset_id)
    if spec is None:
        return None
    # Data may have been recorded while a person watched; evaluation has no window.
    kwargs = {name: value for name, value in (spec.get("kwargs") or {}).items() if name != "render_mode"}
    found = d4rl.environment_spec(spec["id"], kwargs, spec.get("max_episode_steps"))
    return dataclasses.replace(found, wrappers=tuple(map(_wrapper, spec.get("additional_wrappers") or ())))


def _wrapper(recorded: Mapping[str, Any]) -> WrapperSpec:
    """A wrapper of the metadata; only Gymnasium's own are known by name."""
    module, _, name = recorded["entry_point"].partition(":")
    ours = module == "gymnasium.wrappers" or module.startswith("gymnasium.wrappers.")
    return WrapperSpec(name if ours else recorded["entry_point"], recorded.get("kwargs"))


def _reference(metadata: Mapping[str, Any], dataset_id: str, *, other_version: bool) -> ReferenceReturns | None:
    """Reference returns in the metadata, which are of the environment there."""
    low, high = (metadata.get(name) for name in ("ref_min_score", "ref_max_score"))
    if low is None or high is None:
        return None
    numbers = all(type(score) in (int, float) for score in (low, high))
    with readable(f"{dataset_id}: ref_min_score and ref_max_score of the metadata"):
        reference = ReferenceReturns(float(low), float(high), other_version) if numbers else None
    if reference is None or not np.isfinite([reference.random, reference.expert]).all() or low == high:
        raise DatasetError(
            f"{dataset_id}: ref_min_score and ref_max_score of the metadata are {low!a} and {high!a}; expected two "
            "numbers that differ"
        )
    return reference


def _family(dataset_id: str, spec: EnvironmentSpec | None) -> str:
    """By environment, else by the words of the id."""
    kind = d4rl.environment_family(spec.id) if spec else "other"
    words = (d4rl.family(word) for word in dataset_id.split("/"))
    return kind if kind != "other" else next((word for word in words if word != "other"), "other")
