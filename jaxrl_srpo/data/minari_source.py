"""Minari datasets by id, through the `minari` package, which is imported only when one is asked for."""

import contextlib
import difflib
import json
import logging
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxrl_srpo.data import d4rl, hdf5, validation
from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.data.fingerprint import fingerprint
from jaxrl_srpo.data.names import is_made_here
from jaxrl_srpo.data.observations import flatten_observation
from jaxrl_srpo.errors import DatasetError

_LOG = logging.getLogger(__name__)
# What metadata call the environment: for evaluation, and of collection.
_SPECS = ("eval_env_spec", "env_spec")


def read_minari(
    dataset_id: str, name: str | None = None, *, env: str | None = None, allow_invalid: bool = False
) -> Dataset:
    """Reads a Minari dataset that is on this machine; the network is not touched.

    Episodes hold T + 1 observations, so every step has its s' and none is dropped. `terminals` are terminations; an
    episode that was truncated counts as a time-out. A last episode that has neither flag was cut short, like the one
    under way when a replay buffer ends; it has no return unless it is the only one. Dictionary observations become
    vectors by `flatten_observation`.

    Args:
      dataset_id: for instance `D4RL/door/human-v2`.
      name: what tables call it; default: the id.
      env: Gymnasium id that overrides the environment in the metadata.
      allow_invalid: log what validation finds instead of raising.

    Returns:
      The dataset; environment and reference returns come from the metadata, where the evaluation environment
      goes before the one of collection.

    Raises:
      DatasetError: Minari is not installed, the dataset is not on this machine, its spaces are not boxes, or it
        fails validation.
    """
    stored = _open(dataset_id)
    _refuse_other_actions(stored, dataset_id)
    episodes = [_read_episode(episode, dataset_id) for episode in stored.iterate_episodes()]
    if not episodes:
        raise DatasetError(f"{dataset_id}: the Minari dataset has no episodes")
    columns = [np.concatenate(column) for column in zip(*episodes, strict=True)]
    observations, actions, rewards, following, terminals, truncations = columns
    low, high = _action_bounds(stored, dataset_id, actions)
    lengths = np.array([len(episode[2]) for episode in episodes], np.int64)
    ends = np.zeros(len(rewards), bool)
    ends[np.cumsum(lengths) - 1] = True
    returns = np.add.reduceat(rewards, np.cumsum(lengths) - lengths)
    complete = slice(None if len(lengths) == 1 or terminals[-1] or truncations[-1] else -1)
    for finding in validation.validate(
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
    ):
        _LOG.warning("%s", finding)
    transitions = (observations, actions, rewards.astype(np.float32), following, terminals)
    spec = d4rl.environment_spec(env) if env else _environment(stored, dataset_id)
    return Dataset(
        name or dataset_id,
        dataset_id,
        *transitions,
        episode_ends=ends,
        episode_returns=returns[complete],
        episode_lengths=lengths[complete],
        timeouts=int((truncations & ~terminals & ends).sum()),
        action_low=low,
        action_high=high,
        fingerprint=fingerprint(*transitions, low, high),
        family=_family(dataset_id, spec),
        environment=spec,
        reference=_reference(stored),
    )


def download_minari(dataset_id: str) -> None:
    """Fetches a Minari dataset from its server into Minari's own directory; without a network this takes half a minute.

    Raises:
      DatasetError: no network, no such id on the server, it needs another version of Minari, or what came cannot be
        read.
    """
    # Minari takes the folder of an interrupted download for the dataset, and goes on with it only by force.
    for options in ({}, {"force_download": True}):
        if _is_sound(dataset_id):
            return
        _fetch(dataset_id, **options)
    _open(dataset_id)


def _is_sound(dataset_id: str) -> bool:
    if not is_here(dataset_id):
        return False
    try:
        _open(dataset_id)
    except DatasetError:
        return False
    return True


def _fetch(dataset_id: str, **options: bool) -> None:
    minari = _minari()
    try:
        with _quiet_client():
            minari.download_dataset(dataset_id, **options)
    # Minari lets the exceptions of whichever remote it uses through, which have no common base.
    except Exception as error:
        raise DatasetError(
            f"cannot download Minari dataset {dataset_id}: {_first_line(error)}; check the id and the network, or copy "
            f"its directory to {_place(dataset_id)} by hand"
        ) from error


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Minari's messages on standard error, without the lines of its client on each attempt."""
    from huggingface_hub.utils import logging as client

    level = client.get_verbosity()
    client.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Skipping Download")
            yield
    finally:
        client.set_verbosity(level)


def is_here(dataset_id: str) -> bool:
    """Whether Minari's store on this machine has a dataset of this id; `walk-v0`, without a namespace, is one too."""
    return os.path.isdir(os.path.join(_place(dataset_id), "data"))


def local_ids() -> list[str]:
    """Ids of the Minari datasets on this machine.

    Raises:
      DatasetError: Minari is not installed.
    """
    return list(_minari().list_local_datasets())


def _minari() -> Any:
    """The `minari` package."""
    try:
        import minari
    except ImportError as error:
        raise DatasetError(
            f"Minari datasets need the minari package ({error}); install it with pip install 'minari[hdf5]'"
        ) from error
    return minari


def _place(dataset_id: str) -> str:
    """Where Minari looks for a dataset."""
    from minari.storage import get_dataset_path

    return str(get_dataset_path(dataset_id))


def _open(dataset_id: str) -> Any:
    """The dataset as Minari's own object, once its files are known to run and to refer to nothing."""
    minari = _minari()
    folder = pathlib.Path(_place(dataset_id)) / "data"
    if os.path.isfile(folder / "metadata.json"):
        _read_metadata(folder / "metadata.json", dataset_id)
    try:
        if os.path.isfile(file := folder / "main_data.hdf5"):
            with hdf5.open_contained(file):
                pass
        return minari.load_dataset(dataset_id)
    except FileNotFoundError as error:
        here = difflib.get_close_matches(dataset_id, local_ids(), n=3, cutoff=0.4)
        hint = f"; close to it here: {', '.join(here)}" if here else ""
        verb, command = ("make", "make") if is_made_here(dataset_id) else ("fetch", "download")
        raise DatasetError(
            f"Minari dataset {dataset_id!r} is not at {_place(dataset_id)}: {verb} it with "
            f"`jaxrl-srpo data {command} {dataset_id}` or set MINARI_DATASETS_PATH{hint}"
        ) from error
    except (ValueError, KeyError, OSError, AssertionError) as error:
        raise DatasetError(f"Minari dataset {dataset_id!r} cannot be read: {_first_line(error)}") from error


def _read_metadata(path: pathlib.Path, dataset_id: str) -> dict[str, Any]:
    """Metadata that have both spaces: to find one Minari would make the environment named there, and so run code."""
    try:
        metadata = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{dataset_id}: {path} cannot be read as JSON: {_first_line(error)}") from error
    if not isinstance(metadata, dict):
        raise DatasetError(f"{dataset_id}: {path} is not a JSON object")
    for name in ("observation_space", "action_space"):
        if not isinstance(metadata.get(name), str):
            raise DatasetError(
                f"{dataset_id}: {path} has no {name}; Minari writes both spaces, and nothing that a dataset names is "
                "run to find them"
            )
    for name in _SPECS:
        _spec(metadata, name, dataset_id)
    return metadata


def _spec(metadata: Mapping[str, Any], name: str, dataset_id: str) -> dict[str, Any] | None:
    """An environment's spec in the metadata; None where there is none."""
    text = metadata.get(name)
    if not text:
        return None
    try:
        spec = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{dataset_id}: {name} of the metadata is not JSON: {_first_line(error)}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("id"), str):
        raise DatasetError(f"{dataset_id}: {name} of the metadata has no id; expected a Gymnasium spec")
    limit = spec.get("max_episode_steps")
    if not isinstance(spec.get("kwargs") or {}, dict) or not (limit is None or (type(limit) is int and limit > 0)):
        raise DatasetError(
            f"{dataset_id}: kwargs or max_episode_steps of the metadata's {name} are no Gymnasium spec's"
        )
    return spec


def entry_point(dataset_id: str) -> str | None:
    """The entry point that the metadata of a dataset on this machine give for its environment; nothing runs it.

    Raises:
      DatasetError: as `read_minari`.
    """
    path = pathlib.Path(_place(dataset_id)) / "data" / "metadata.json"
    spec = _environment_in(_read_metadata(path, dataset_id), dataset_id)
    found = None if spec is None else spec.get("entry_point")
    return found if isinstance(found, str) else None


def _environment_in(metadata: Mapping[str, Any], dataset_id: str) -> dict[str, Any] | None:
    """The spec for evaluation in the metadata, else the one of collection."""
    return next((spec for name in _SPECS if (spec := _spec(metadata, name, dataset_id))), None)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


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
    space = stored.action_space
    low = np.where(np.isfinite(space.low), space.low, np.fmin.reduce(actions, axis=0)).astype(np.float32)
    high = np.where(np.isfinite(space.high), space.high, np.fmax.reduce(actions, axis=0)).astype(np.float32)
    validation.require_bounds(dataset_id, low, high)
    return low, high


def _read_episode(episode: Any, dataset_id: str) -> tuple[np.ndarray, ...]:
    """One episode as observations, actions, rewards, next observations, terminations and truncations of T steps."""
    if not isinstance(episode.observations, Mapping | np.ndarray) or not isinstance(episode.actions, np.ndarray):
        raise DatasetError(f"{dataset_id}, episode {episode.id}: only array or dictionary observations can be read")
    observations = flatten_observation(episode.observations)
    numbers = {
        "observations": observations,
        "actions": episode.actions,
        "rewards": np.asarray(episode.rewards),
        "terminals": np.asarray(episode.terminations),
        "timeouts": np.asarray(episode.truncations),
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
        np.asarray(episode.rewards, np.float64),
        observations[1:],
        np.asarray(episode.terminations, bool),
        np.asarray(episode.truncations, bool),
    )


def _environment(stored: Any, dataset_id: str) -> EnvironmentSpec | None:
    """The environment for evaluation in the metadata, else the one of collection."""
    spec = _environment_in(stored.storage.metadata, dataset_id)
    if spec is None:
        return None
    # Data may have been recorded while a person watched; evaluation has no window.
    kwargs = {name: value for name, value in (spec.get("kwargs") or {}).items() if name != "render_mode"}
    return d4rl.environment_spec(spec["id"], kwargs, spec.get("max_episode_steps"))


def _reference(stored: Any) -> ReferenceReturns | None:
    """Reference returns in the metadata."""
    metadata = stored.storage.metadata
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return None if low is None or high is None else ReferenceReturns(float(low), float(high))


def _family(dataset_id: str, spec: EnvironmentSpec | None) -> str:
    """By environment, else by the words of the id."""
    kind = d4rl.environment_family(spec.id) if spec else "other"
    words = (d4rl.family(word) for word in dataset_id.split("/"))
    return kind if kind != "other" else next((word for word in words if word != "other"), "other")
