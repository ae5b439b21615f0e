"""Orbax checkpoints that are whole or absent, and that say when they are damaged.

A save is one directory, renamed into place when complete, with a manifest of its files, see `io.manifest`. Saves of
earlier versions have none: they are read, but nobody can tell whether each number is the one that was written.
"""

import contextlib
import errno
import logging
import math
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_srpo.errors import UserError, first_line
from jaxrl_srpo.io import manifest

Writing = Callable[[], AbstractContextManager[bool]]
"""Makes what a rename happens in, such as a lock; gives whether it may happen still."""

_KEPT = 2


class DamagedCheckpoint(UserError):
    """A checkpoint is not what was written, or nothing that this version can read."""


def _always() -> AbstractContextManager[bool]:
    return contextlib.nullcontext(True)


@contextlib.contextmanager
def _checkpointer() -> Iterator[ocp.StandardCheckpointer]:
    """A checkpointer that waits for no other process of a multi-host run, because all arrays here are on the host.

    It logs nothing: Orbax writes the traceback of each error that it raises, too.
    """
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    logger = logging.getLogger("absl")
    logger.addFilter(_nothing)
    try:
        with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
            yield checkpointer
    finally:
        logger.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return record.levelno > logging.CRITICAL


def save(path: pathlib.Path, tree: Any, about: Mapping[str, Any] | None = None, writing: Writing = _always) -> bool:
    """Saves a pytree of arrays in place of an older save of the same path.

    Args:
      path: of the directory to make.
      tree: the pytree.
      about: what its manifest tells of it.
      writing: see `Writing`.

    Returns:
      Whether it was saved: not if it might not happen any more.

    Raises:
      OSError: it cannot be written; an older save is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    workplace = path.with_name(f"{_prefix(path)}{secrets.token_hex(4)}")
    try:
        _prepare(workplace / "checkpoint", tree, about)
    except Exception:
        # Whoever took over removes what others left unfinished.
        with writing() as may:
            if may:
                raise
        return False
    else:
        with writing() as may:
            if may:
                # Nobody sees half of the older one, which is removed with the workplace.
                if path.exists():
                    path.rename(workplace / "older")
                (workplace / "checkpoint").rename(path)
                remove_leftovers(path)
        return may
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _prefix(path: pathlib.Path) -> str:
    return f".{path.name}.tmp-"


def remove_leftovers(path: pathlib.Path) -> None:
    """Removes what saves of the same path left that were killed."""
    for old in path.parent.glob(f"{_prefix(path)}*"):
        shutil.rmtree(old, ignore_errors=True)


def _prepare(path: pathlib.Path, tree: Any, about: Mapping[str, Any] | None) -> None:
    """A complete save with its manifest, in a place of its own."""

    def by_orbax() -> None:
        with _checkpointer() as checkpointer:
            checkpointer.save(path.absolute(), _accepted(tree))

    try:
        _uninterrupted(by_orbax)
    except ValueError as error:
        # TensorStore tells a full disk so.
        raise _storage_error(path, error) from error
    manifest.write(path, about)


def _uninterrupted(call: Callable[[], None]) -> None:
    """Calls something in a thread, so that an interrupt waits for its end.

    Orbax leaves threads behind when it is interrupted in a save, which wait for each other and keep the process alive.
    """
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def _storage_error(path: pathlib.Path, error: ValueError) -> Exception:
    text = str(error)
    codes = {os.strerror(code): code for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.EROFS)}
    code = next((code for reason, code in codes.items() if reason in text), None)
    return error if code is None else OSError(code, os.strerror(code), str(path))


def load(path: pathlib.Path, template: Any) -> Any:
    """Restores a pytree.

    Args:
      path: where it was saved.
      template: its structure, shapes and types, as arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The pytree of arrays.

    Raises:
      DamagedCheckpoint: it is not what was written, or holds other arrays.
    """
    check(path)
    return restore(path, template)


def restore(path: pathlib.Path, template: Any) -> Any:
    """Restores a pytree that was looked at by `check`; see `load`.

    Raises:
      DamagedCheckpoint: it cannot be read, or holds other arrays.
    """
    with _damage_named(path), _checkpointer() as checkpointer:
        restored = checkpointer.restore(path.absolute(), _accepted(template))

    def filled(saved: Any, own: Any) -> Any:
        # Orbax gives None for arrays without elements, and for what is None itself.
        if saved is None:
            return saved if own is None else np.zeros(own.shape, own.dtype)
        if np.shape(saved) != np.shape(own):
            raise DamagedCheckpoint(
                f"{path} is damaged: it holds an array of shape {np.shape(saved)} in the place of {np.shape(own)}"
            )
        return saved

    return jax.tree.map(filled, restored, template, is_leaf=lambda leaf: leaf is None)


def check(path: pathlib.Path) -> None:
    """Compares a checkpoint with its manifest, if it has one.

    Raises:
      DamagedCheckpoint: they differ.
    """
    if found := manifest.problem(path):
        raise DamagedCheckpoint(f"{path} is damaged: {found}")


def about(path: pathlib.Path) -> dict[str, Any] | None:
    """What was told of a checkpoint when it was saved; None if it is of an earlier version.

    Raises:
      DamagedCheckpoint: its manifest is not what was written.
    """
    try:
        found = manifest.read(path)
    except UserError as error:
        raise DamagedCheckpoint(f"{path} is damaged: {error}") from None
    return None if found is None else found.about


def read_all(path: pathlib.Path) -> Any:
    """Reads all arrays of a save, whatever they are.

    Raises:
      DamagedCheckpoint: they cannot be read.
    """
    with _damage_named(path), _checkpointer() as checkpointer:
        return checkpointer.restore(path.absolute())


def fits(path: pathlib.Path, template: Any) -> bool:
    """Whether what was saved has the structure of a template; nothing is read but names.

    Raises:
      DamagedCheckpoint: the names cannot be read.
    """
    with _damage_named(path), _checkpointer() as checkpointer:
        saved = checkpointer.metadata(path.absolute()).item_metadata
        return _names(saved.tree) == _names(template)


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    """Tells whatever Orbax and TensorStore raise at a damaged file in one line: they have no common error."""
    try:
        yield
    except Exception as error:
        raise DamagedCheckpoint(f"{path} is damaged: Orbax cannot read it ({first_line(error)})") from error


def _names(tree: Any) -> set[str]:
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]
    return {"/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path) for path, _ in paths}


def _accepted(tree: Any) -> Any:
    """The tree as Orbax accepts it: None for arrays without elements, arrays for NumPy's scalars."""

    def accepted(x: Any) -> Any:
        return np.asarray(x) if isinstance(x, np.generic) else x if math.prod(np.shape(x)) else None

    return jax.tree.map(accepted, tree)


class Saved(NamedTuple):
    """A checkpoint of a stage under way: its step and its tree."""

    step: int
    tree: Any


class Progress:
    """The latest checkpoints of a stage under way: two, so that a damaged one leaves another.

    Args:
      directory: checkpoints lie in `directory/<step>`.
      writing: see `Writing`.
    """

    def __init__(self, directory: pathlib.Path, writing: Writing = _always) -> None:
        self._directory, self._writing = directory, writing

    def steps(self) -> list[int]:
        """Steps of the checkpoints, the newest first."""
        names = [path.name for path in self._directory.glob("*")]
        return sorted((int(name) for name in names if name.isascii() and name.isdecimal()), reverse=True)

    def path(self, step: int) -> pathlib.Path:
        """Where the checkpoint of a step lies."""
        return self._directory / str(step)

    def save(self, step: int, tree: Any) -> None:
        """Saves, then removes what neither it nor the one before is; a kill in between leaves more.

        Nothing is saved where it may not happen any more.

        Raises:
          OSError: it cannot be written; those before it are as they were.
        """
        if not save(self.path(step), tree, {"step": step}, self._writing):
            return
        kept = {str(one) for one in [one for one in self.steps() if one <= step][:_KEPT]}
        with self._writing() as may:
            for path in self._directory.glob("*") if may else ():
                if path.name not in kept:
                    shutil.rmtree(path, ignore_errors=True)

    def restore(
        self, template: Callable[[int], Any], tell: Callable[[str], None], below: float = math.inf
    ) -> Saved | None:
        """The newest whole checkpoint; None if there is none.

        Args:
          template: gives that of a step, see `load`.
          tell: gets a line for each damaged one that is passed over.
          below: a step that those of the stage stay under.
        """
        steps = self.steps()
        for step, before in zip(steps, [*steps, None][1:], strict=True):
            try:
                return Saved(step, self._load(step, template, below))
            except DamagedCheckpoint as error:
                instead = "the stage begins again" if before is None else f"step {before} is taken instead"
                tell(f"{error}; {instead}")
        return None

    def check(self, step: int, below: float = math.inf) -> None:
        """Looks at the checkpoint of a step without restoring it.

        Raises:
          DamagedCheckpoint: it is not what was written, or of another step.
        """
        path = self.path(step)
        told = about(path)
        if step >= below or (told is not None and told.get("step") != step):
            raise DamagedCheckpoint(f"{path} is damaged: it is not of step {step}")
        check(path)

    def _load(self, step: int, template: Callable[[int], Any], below: float) -> Any:
        self.check(step, below)
        return restore(self.path(step), template(step))

    def clear(self) -> None:
        """Removes all checkpoints of the stage, if that may happen still."""
        with self._writing() as may:
            if may:
                shutil.rmtree(self._directory, ignore_errors=True)
