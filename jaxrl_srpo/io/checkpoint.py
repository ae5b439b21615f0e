"""Orbax checkpoints that are whole or absent: one directory per save, renamed into place when complete."""

import math
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def _checkpointer() -> ocp.StandardCheckpointer:
    """A checkpointer that waits for no other process of a multi-host run, because all arrays here are on the host."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def save(path: pathlib.Path, tree: Any) -> None:
    """Saves a pytree of arrays in place of an older save of the same path."""
    with _checkpointer() as checkpointer:
        checkpointer.save(path.absolute(), _accepted(tree), force=True)


def load(path: pathlib.Path, template: Any) -> Any:
    """Restores a pytree.

    Args:
      path: where it was saved.
      template: its structure, shapes and types, as arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The pytree of arrays.
    """
    with _checkpointer() as checkpointer:
        restored = checkpointer.restore(path.absolute(), _accepted(template))

    def filled(saved: Any, own: Any) -> Any:
        # Orbax gives None for arrays without elements, and for what is None itself.
        return saved if saved is not None or own is None else np.zeros(own.shape, own.dtype)

    return jax.tree.map(filled, restored, template, is_leaf=lambda leaf: leaf is None)


def fits(path: pathlib.Path, template: Any) -> bool:
    """Whether what was saved has the structure of a template; nothing is read but names."""
    with _checkpointer() as checkpointer:
        saved = checkpointer.metadata(path.absolute()).item_metadata
    return _names(saved.tree) == _names(template)


def _names(tree: Any) -> set[str]:
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]
    return {"/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path) for path, _ in paths}


def _accepted(tree: Any) -> Any:
    """The tree as Orbax accepts it: None for arrays without elements, arrays for NumPy's scalars."""

    def accepted(x: Any) -> Any:
        return np.asarray(x) if isinstance(x, np.generic) else x if math.prod(np.shape(x)) else None

    return jax.tree.map(accepted, tree)


class Progress:
    """The latest checkpoint of a stage under way.

    Args:
      directory: checkpoints lie in `directory/<step>`.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def latest(self) -> int | None:
        """Step of the newest whole checkpoint; None if there is none."""
        steps = [int(p.name) for p in self._directory.glob("*") if p.name.isdigit()]
        return max(steps, default=None)

    def save(self, step: int, tree: Any) -> None:
        """Saves, then removes what came before; a kill in between leaves both."""
        save(self._directory / str(step), tree)
        for path in self._directory.glob("*"):
            if path.name != str(step):
                shutil.rmtree(path, ignore_errors=True)

    def load(self, step: int, template: Any) -> Any:
        """Restores the checkpoint of a step."""
        return load(self._directory / str(step), template)

    def clear(self) -> None:
        """Removes all checkpoints of the stage."""
        shutil.rmtree(self._directory, ignore_errors=True)
