"""Minari's store on this machine: what is in it, opening a dataset of it, and fetching one into it."""

import contextlib
import difflib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from jaxrl_srpo.data.minari_files import folder_of, local_ids, read_metadata, require_whole
from jaxrl_srpo.data.names import is_made_here
from jaxrl_srpo.data.reading import readable
from jaxrl_srpo.errors import DatasetError, first_line


def is_here(dataset_id: str) -> bool:
    """Whether Minari's store on this machine has a dataset of this id; `walk-v0`, without a namespace, is one too."""
    return os.path.isdir(folder_of(dataset_id))


def import_minari() -> Any:
    """The `minari` package."""
    try:
        import minari
    except ImportError as error:
        raise DatasetError(
            f"Minari datasets need the minari package ({error}); install it with pip install 'minari[hdf5]'"
        ) from error
    return minari


def open_dataset(dataset_id: str) -> tuple[Any, dict[str, Any]]:
    """The dataset as Minari's own object, once its files are known to run and to refer to nothing, and its metadata."""
    minari = import_minari()
    if not is_here(dataset_id):
        raise _absent(dataset_id)
    metadata = read_metadata(dataset_id)
    require_whole(dataset_id, metadata)
    with readable(f"Minari dataset {dataset_id!r}"), warnings.catch_warnings():
        # Gymnasium warns of spaces that are rounded.
        warnings.simplefilter("ignore")
        return minari.MinariDataset(str(folder_of(dataset_id))), metadata


def _absent(dataset_id: str) -> DatasetError:
    """The error for a dataset that is not on this machine, with the closest that are."""
    here = difflib.get_close_matches(dataset_id, local_ids(), n=3, cutoff=0.4)
    hint = f"; close to it here: {', '.join(here)}" if here else ""
    verb, command = ("make", "make") if is_made_here(dataset_id) else ("fetch", "download")
    return DatasetError(
        f"Minari dataset {dataset_id!r} is not at {folder_of(dataset_id).parent}: {verb} it with "
        f"`jaxrl-srpo data {command} {dataset_id}` or set MINARI_DATASETS_PATH{hint}"
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
    open_dataset(dataset_id)


def _is_sound(dataset_id: str) -> bool:
    if not is_here(dataset_id):
        return False
    try:
        open_dataset(dataset_id)
    except DatasetError:
        return False
    return True


def _fetch(dataset_id: str, **options: bool) -> None:
    minari = import_minari()
    try:
        with _quiet_client():
            minari.download_dataset(dataset_id, **options)
    # Minari lets the exceptions of whichever remote it uses through, which have no common base.
    except Exception as error:
        raise DatasetError(
            f"cannot download Minari dataset {dataset_id}: {first_line(error)}; check the id and the network, or copy "
            f"its directory to {folder_of(dataset_id).parent} by hand"
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
