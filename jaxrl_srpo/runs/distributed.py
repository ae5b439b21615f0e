"""Several processes (hosts) that train one population together; the first, the coordinator, decides and writes."""

import contextlib
import re
import socket
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from jaxrl_srpo.errors import UserError

PATIENCE_SECONDS = 300.0


class Address(NamedTuple):
    """Where a process listens."""

    host: str
    port: int


def join(
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    patience: float = PATIENCE_SECONDS,
) -> None:
    """Makes this process one of several whose devices form one mesh; must come before any computation.

    Args:
      coordinator_address: HOST:PORT of the first process, or `auto` where SLURM, MPI or a TPU pod tells all three;
        None leaves this process alone.
      num_processes: number of processes.
      process_id: number of this one, from 0.
      patience: seconds to wait for the first process.

    Raises:
      UserError: if only a part is given, or the first process cannot be reached.
    """
    if coordinator_address is None:
        if num_processes is not None or process_id is not None:
            raise UserError("--num_processes, --process_id: need --coordinator_address=HOST:PORT (or auto) too")
        return
    flag = f"--coordinator_address={coordinator_address}"
    if coordinator_address == "auto":
        try:
            jax.distributed.initialize()
        # What the environment of a cluster lacks comes as a KeyError.
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{flag}: {error}; give HOST:PORT where nothing here tells it") from None
        return
    parse_address(flag, coordinator_address)
    if num_processes is None or process_id is None or process_id >= num_processes:
        raise UserError(f"{flag}: needs --num_processes=N and --process_id from 0 to N - 1")
    # JAX aborts the process, with a stack trace of C++, when it cannot connect.
    if process_id > 0:
        wait_for_server(flag, coordinator_address, patience)
    jax.distributed.initialize(coordinator_address, num_processes, process_id)


def wait_for_server(flag: str, address: str, patience: float) -> None:
    """Returns once something listens at HOST:PORT.

    Args:
      flag: what to call it in the message.
      address: HOST:PORT.
      patience: seconds to wait.

    Raises:
      UserError: if nothing does in time, or it is no such address.
    """
    host, port = parse_address(flag, address)
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=5.0):
            return
        time.sleep(0.1)
    raise UserError(f"{flag}: nothing answers there after {patience:g} s; is it the right address?")


def parse_address(flag: str, address: str) -> Address:
    """Host and port of an address.

    Args:
      flag: what to call it in the message.
      address: HOST:PORT, or [IPV6]:PORT.

    Raises:
      UserError: it is no such address.
    """
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", address)
    port = int(match[3]) if match else 0
    host = (match[1] or match[2]) if match else ""
    if not 1 <= port <= 65535 or max(map(len, host.split("."))) > 63 or "" in host.split("."):
        raise UserError(f"{flag}: give HOST:PORT, with a port from 1 to 65535, for instance 10.0.0.1:1234")
    return Address(host, port)


def coordinator() -> bool:
    """Whether this process decides and writes; true for a process alone."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def broadcast(value: int) -> int:
    """The coordinator's value, in all processes."""
    if not jax.distributed.is_initialized():
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def broadcast_tree(tree: Any) -> Any:
    """The coordinator's arrays, in all processes; the others give a tree of equal shapes and types.

    Only the coordinator needs to see the files that the arrays come from: on a shared file system that lags, what one
    process has written another may not find.
    """
    if not jax.distributed.is_initialized():
        return tree

    def send(x: Any) -> Any:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = multihost_utils.broadcast_one_to_all(jax.random.key_data(x))
            return jax.random.wrap_key_data(data)
        return np.asarray(multihost_utils.broadcast_one_to_all(x)).astype(x.dtype)

    return jax.tree.map(send, tree)
