"""Folders of Minari's store: their metadata, and that all their episodes are there, before Minari reads them."""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import h5py

from jaxrl_srpo.data import hdf5
from jaxrl_srpo.data.minari_writer import storage_root
from jaxrl_srpo.data.reading import readable, require_text
from jaxrl_srpo.errors import DatasetError, first_line
from jaxrl_srpo.io.processors import memory

FORMATS = ("hdf5", "arrow", "parquet")
"""Minari's formats of data."""

# What metadata call the environment: for evaluation, and of collection.
_SPECS = ("eval_env_spec", "env_spec")
_COLUMNS = ("observations", "actions", "rewards", "terminations", "truncations")


def folder_of(dataset_id: str) -> pathlib.Path:
    """Where Minari keeps the files of a dataset."""
    return storage_root() / dataset_id / "data"


def local_ids() -> list[str]:
    """Ids of the Minari datasets on this machine, sorted, whether or not they can be read."""
    root = storage_root()
    found = []
    for folder, children, files in os.walk(root):
        if os.path.basename(folder) == "data":
            children.clear()
            if "metadata.json" in files:
                found.append(pathlib.Path(folder).parent.relative_to(root).as_posix())
        children[:] = [child for child in children if not child.startswith(".")]
    return sorted(found)


def read_metadata(dataset_id: str) -> dict[str, Any]:
    """Metadata that have both spaces: to find one Minari would make the environment named there, and so run code.

    Raises:
      DatasetError: they are missing, damaged, or not such as Minari writes.
    """
    return read_metadata_in(folder_of(dataset_id), dataset_id)


def read_metadata_in(folder: pathlib.Path, dataset_id: str) -> dict[str, Any]:
    """The same of a dataset in a folder that need not be Minari's own.

    Raises:
      DatasetError: as `read_metadata`.
    """
    path = folder / "metadata.json"
    if not path.is_file():
        raise DatasetError(f"Minari dataset {dataset_id!r} cannot be read: No data found; there is no {path}")
    try:
        metadata = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{dataset_id}: {path} cannot be read as JSON: {first_line(error)}") from error
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
    for name in ("total_episodes", "total_steps"):
        if type(metadata.get(name)) is not int or metadata[name] < 0:
            raise DatasetError(f"{dataset_id}: {name} of the metadata is {metadata.get(name)!a}; expected a number")
    if metadata.get("data_format") not in FORMATS:
        raise DatasetError(
            f"{dataset_id}: data_format of the metadata is {metadata.get('data_format')!a}; expected one of "
            f"{', '.join(FORMATS)}"
        )
    return metadata


def environment_in(metadata: Mapping[str, Any], dataset_id: str) -> dict[str, Any] | None:
    """The spec for evaluation in the metadata, else the one of collection."""
    return next((spec for name in _SPECS if (spec := _spec(metadata, name, dataset_id))), None)


def require_whole(dataset_id: str, metadata: Mapping[str, Any]) -> None:
    """Refuses a dataset that lacks episodes, refers to other files, or does not fit into memory, before it is read.

    Raises:
      DatasetError: it does, or its files are damaged or of another format than the metadata say.
    """
    folder, kind = folder_of(dataset_id), metadata["data_format"]
    with readable(f"Minari dataset {dataset_id!r}"):
        if kind == "hdf5":
            _require_whole_hdf5(dataset_id, folder / "main_data.hdf5", metadata["total_episodes"])
        else:
            names = [child.name for child in folder.iterdir() if child.is_dir()]
            _require_episodes(dataset_id, names, "", metadata["total_episodes"], f"{folder}, in {kind},")
            _require_whole_arrow(dataset_id, folder, kind)


def _require_memory(dataset_id: str, size: int) -> None:
    """Refuses data of more bytes than fit into memory when they are read, converted, and packed into one table."""
    if 3 * size > memory():
        raise DatasetError(
            f"Minari dataset {dataset_id!r} needs about {3 * size / 2**30:,.0f} GiB of memory; this machine has "
            f"{memory() / 2**30:,.0f} GiB"
        )


def _spec(metadata: Mapping[str, Any], name: str, dataset_id: str) -> dict[str, Any] | None:
    """An environment's spec in the metadata; None where there is none."""
    text = metadata.get(name)
    if not text:
        return None
    try:
        spec = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"{dataset_id}: {name} of the metadata is not JSON: {first_line(error)}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("id"), str):
        raise DatasetError(f"{dataset_id}: {name} of the metadata has no id; expected a Gymnasium spec")
    require_text(f"{dataset_id}: the id in {name} of the metadata", spec["id"])
    limit = spec.get("max_episode_steps")
    if not isinstance(spec.get("kwargs") or {}, dict) or not (limit is None or (type(limit) is int and limit > 0)):
        raise DatasetError(
            f"{dataset_id}: kwargs or max_episode_steps of the metadata's {name} are no Gymnasium spec's"
        )
    wrappers = spec.get("additional_wrappers") or ()
    if not isinstance(wrappers, list | tuple) or not all(map(_is_wrapper, wrappers)):
        raise DatasetError(f"{dataset_id}: additional_wrappers of the metadata's {name} are no Gymnasium spec's")
    if isinstance(spec.get("entry_point"), str):
        require_text(f"{dataset_id}: the entry_point in {name} of the metadata", spec["entry_point"])
    return spec


def _is_wrapper(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("entry_point"), str):
        return False
    return value["entry_point"].isprintable() and isinstance(value.get("kwargs"), dict | None)


def _require_episodes(dataset_id: str, names: list[str], prefix: str, total: int, place: str) -> None:
    """Refuses names of stored episodes that are not those of `total` ones, counted from 0."""
    numbers = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    numbers = {number for number in numbers if number.isdecimal()}
    if len(numbers) != total:
        raise DatasetError(
            f"{dataset_id}: the metadata say {total} episodes, {place} has {len(numbers)}; copy the whole dataset again"
        )
    missing = next((number for number in map(str, range(total)) if number not in numbers), None)
    if missing is not None:
        raise DatasetError(f"{dataset_id}: episode {missing} is missing in {place}; copy the whole dataset again")


def _require_whole_hdf5(dataset_id: str, path: pathlib.Path, total: int) -> None:
    """Refuses an HDF5 file that lacks episodes, or refers to others."""
    with hdf5.open_contained(path) as file:
        _require_episodes(dataset_id, list(file), "episode_", total, path.name)
        sizes = (_bytes_in(file, f"episode_{k}", f"{dataset_id}, episode {k}") for k in range(total))
        _require_memory(dataset_id, sum(sizes))


def _bytes_in(file: h5py.File, name: str, where: str) -> int:
    """Bytes of one episode's columns; all their values must have been written."""
    episode, total = file[name], 0
    for column in _COLUMNS:
        if not isinstance(episode, h5py.Group) or column not in episode:
            raise DatasetError(f"{where}: {column} is missing")
        todo = [(column, episode[column])]
        while todo:
            place, found = todo.pop()
            if isinstance(found, h5py.Group):
                todo += [(f"{place}/{child}", found[child]) for child in found]
            elif isinstance(found, h5py.Dataset):
                hdf5.refuse_gaps(found, f"{where}: {place}")
                total += math.prod(found.shape or ()) * found.id.get_type().get_size()
    return total


def _require_whole_arrow(dataset_id: str, folder: pathlib.Path, kind: str) -> None:
    """Refuses files of pyarrow's that are damaged, or larger than memory by their rows and the types of columns."""
    try:
        import pyarrow.dataset
    except ImportError as error:
        raise DatasetError(
            f"Minari datasets in {kind} need pyarrow ({first_line(error)}); install it with pip install 'minari[arrow]'"
        ) from error
    files = pyarrow.dataset.dataset(str(folder), format=kind, ignore_prefixes=["_", ".", "metadata.json"])
    width = sum(_arrow_width(files.schema.field(name).type) for name in files.schema.names if name in _COLUMNS)
    _require_memory(dataset_id, int(files.count_rows()) * width)
    # pyarrow trusts the places of values in a file, and reads outside its memory where they are damaged.
    for batch in files.to_batches():
        batch.validate(full=True)


def _arrow_width(kind: Any) -> int:
    """Bytes of one value of an Arrow type; 8 for what has no fixed size."""
    import pyarrow

    if pyarrow.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _arrow_width(kind.value_type)
    if pyarrow.types.is_struct(kind):
        return sum(_arrow_width(kind.field(k).type) for k in range(kind.num_fields))
    return max(1, kind.bit_width // 8) if pyarrow.types.is_primitive(kind) else 8
