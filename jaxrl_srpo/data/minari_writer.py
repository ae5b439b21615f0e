"""Writes datasets made on this machine into Minari's local storage, whole or not at all."""

import importlib.metadata
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrl_srpo.errors import DatasetError
from jaxrl_srpo.io.files import locked

if TYPE_CHECKING:
    import gymnasium

MakeEnvironment = Callable[[], "gymnasium.Env"]
"""Makes the environment in which the episodes are played."""

PlayEpisodes = Callable[["gymnasium.Env"], Iterable[dict[str, Any]]]
"""Plays the episodes in the environment; each is a dictionary of the fields of Minari's `EpisodeBuffer`."""


def storage_root() -> Path:
    """Minari's local storage; computed here because Minari's own function creates it."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def exists(dataset_id: str) -> bool:
    """Whether there is a dataset of this id."""
    return (storage_root() / dataset_id / "data").exists()


def write_dataset(
    dataset_id: str,
    make_environment: MakeEnvironment,
    play_episodes: PlayEpisodes,
    description: Mapping[str, Any],
    exist_ok: bool = False,
) -> None:
    """Writes a dataset into a hidden folder, which Minari does not list, and renames it when it is whole.

    Of two processes one writes it and the other waits.

    Args:
      dataset_id: `NAMESPACE/NAME-vN`.
      make_environment: makes the environment of the episodes, in which policies learned from them are evaluated. It is
        called only where there is something to write; its observations are stored as they are.
      play_episodes: plays the episodes in it.
      description: metadata, for instance `algorithm_name` and `description`.
      exist_ok: leave a dataset of this id as it is.

    Raises:
      DatasetError: the id is taken, or the storage cannot be written.
      UserError: the environment cannot be made.
    """
    root = storage_root()
    target, partial = root / dataset_id, root / f".{dataset_id.replace('/', '-')}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / "jaxrl_srpo", math.inf):
            if exists(dataset_id):
                if exist_ok:
                    return
                raise DatasetError(f"{dataset_id} already exists at {target}; remove it or choose another name")
            shutil.rmtree(partial, ignore_errors=True)
            (partial / "data").mkdir(parents=True)
            _write(partial / "data", dataset_id, make_environment(), play_episodes, description)
            _ensure_namespace(dataset_id.rpartition("/")[0])
            os.rename(partial, target)
    except OSError as error:
        raise DatasetError(
            f"cannot write {dataset_id} at {target}: {error.strerror or error}; "
            "set MINARI_DATASETS_PATH to a folder that can be written"
        ) from error


def _write(
    folder: Path,
    dataset_id: str,
    environment: "gymnasium.Env",
    play_episodes: PlayEpisodes,
    description: Mapping[str, Any],
) -> None:
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    # Minari's create_dataset_from_buffers does the same in the final place, where a killed process would leave a stump.
    storage = MinariStorage.new(
        folder,
        observation_space=environment.observation_space,
        action_space=environment.action_space,
        env_spec=environment.spec,
        data_format="hdf5",
    )
    about = {"dataset_id": dataset_id, "minari_version": importlib.metadata.version("minari"), "author": {"jaxrl_srpo"}}
    storage.update_metadata(about | dict(description))
    storage.update_episodes(EpisodeBuffer(**episode) for episode in play_episodes(environment))
    environment.close()


def _ensure_namespace(namespace: str) -> None:
    from minari.namespace import create_namespace, list_local_namespaces

    if namespace not in list_local_namespaces():
        create_namespace(namespace, "Made by jaxrl_srpo")
