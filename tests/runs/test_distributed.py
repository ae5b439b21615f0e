"""One population trained by two processes of one JAX program, as on two hosts."""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.runs import distributed
from tests import run_comparison, synthetic
from tests.integration import kills

SWEEP: dict[str, Any] = {"seeds": "0:2", "beta": "0.1,0.3", "checkpoint_seconds": 0}


def test_two_processes_end_bitwise_where_one_process_with_their_devices_ends(tmp_path: pathlib.Path) -> None:
    dataset = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    alone, together = tmp_path / "alone", tmp_path / "together"
    result = synthetic.run(synthetic.train_command([dataset], alone, **SWEEP, cpu_devices=2))
    assert result.returncode == 0, result.stderr
    address = f"127.0.0.1:{run_comparison.free_port()}"
    command = synthetic.train_command(
        [dataset], together, **SWEEP, cpu_devices=1, coordinator_address=address, num_processes=2
    )
    outputs = run_side_by_side([[*command, f"--process_id={number}"] for number in range(2)], tmp_path)
    run_comparison.assert_same_but_for_order(together, alone)
    assert not list((together / "checkpoints" / "under_way").iterdir())
    # One of them speaks for both.
    assert "SRPO" in outputs[0]
    assert "SRPO" not in outputs[1]


def test_a_process_that_sees_nothing_of_the_run_directory_ends_too(tmp_path: pathlib.Path) -> None:
    """Its share lags behind for ever; one stage is finished and another killed, of which only the first one knows."""
    dataset = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    alone, together, elsewhere = (tmp_path / name for name in ("alone", "together", "elsewhere"))
    sweep = SWEEP | {"critic_steps": 80}
    result = synthetic.run(synthetic.train_command([dataset], alone, **sweep, cpu_devices=2))
    assert result.returncode == 0, result.stderr
    interrupted = synthetic.train_command([dataset], together, **sweep, cpu_devices=2)
    kills.kill_in_stage(interrupted, together, "critic", 2, 0.0)
    address = f"127.0.0.1:{run_comparison.free_port()}"
    together_flags = {"cpu_devices": 1, "coordinator_address": address, "num_processes": 2}
    commands = [
        [*synthetic.train_command([dataset], out, **sweep, **together_flags), f"--process_id={number}"]
        for number, out in enumerate((together, elsewhere))
    ]
    run_side_by_side(commands, tmp_path)
    run_comparison.assert_same_but_for_order(together, alone)
    assert not elsewhere.exists()


def run_side_by_side(commands: Sequence[Sequence[str]], directory: pathlib.Path) -> list[str]:
    """Outputs of commands that run at the same time and end well."""
    logs = [directory / f"{number}.txt" for number in range(len(commands))]
    with contextlib.ExitStack() as stack:
        processes = []
        for command, log in zip(commands, logs, strict=True):
            with log.open("wb") as file:
                processes.append(stack.enter_context(synthetic.start(command, file)))
                stack.callback(processes[-1].kill)
        codes = [process.wait(synthetic.LIMIT) for process in processes]
    outputs = [log.read_text() for log in logs]
    assert codes == [0] * len(codes), "\n".join(outputs)
    return outputs


@pytest.mark.parametrize(
    ("address", "count", "number", "message"),
    [
        ("nowhere", 2, 1, "--coordinator_address=nowhere: give HOST:PORT"),
        ("127.0.0.1:1", 2, 1, "--coordinator_address=127.0.0.1:1: nothing answers there after 0.1 s"),
        ("127.0.0.1:0", 2, 0, "give HOST:PORT, with a port from 1 to 65535"),
        ("127.0.0.1:65536", 2, 0, "give HOST:PORT"),
        ("127.0.0.1:99999999999", 2, 1, "give HOST:PORT"),
        ("127.0.0.1:²", 2, 1, "give HOST:PORT"),
        ("127.0.0.1:-1", 2, 0, "give HOST:PORT"),
        ("127.0.0.1:port", 2, 0, "give HOST:PORT"),
        (":80", 2, 0, "give HOST:PORT"),
        ("", 2, 0, "give HOST:PORT"),
        ("a..b:80", 2, 1, "give HOST:PORT"),
        ("ä:80", 2, 1, "give HOST:PORT"),
        ("x" * 64 + ":80", 2, 1, "give HOST:PORT"),
        (None, 2, None, "--num_processes, --process_id: need --coordinator_address"),
        ("127.0.0.1:1", None, 0, "needs --num_processes=N and --process_id from 0 to N - 1"),
        ("127.0.0.1:1", 2, None, "needs --num_processes=N and --process_id from 0 to N - 1"),
        ("127.0.0.1:1", 2, 2, "needs --num_processes=N and --process_id from 0 to N - 1"),
    ],
)
def test_a_part_of_the_address_is_refused(
    address: str | None, count: int | None, number: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        distributed.join(address, count, number, patience=0.1)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("10.0.0.1:80", "10.0.0.1", 80), ("node-1.local:65535", "node-1.local", 65535), ("[::1]:1", "::1", 1)],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert distributed.parse_address("--address", text) == distributed.Address(host, port)


def test_an_environment_that_tells_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks() -> None:
        raise KeyError("SLURM_NTASKS")

    monkeypatch.setattr(jax.distributed, "initialize", lacks)
    with pytest.raises(UserError, match="--coordinator_address=auto: 'SLURM_NTASKS'; give HOST:PORT"):
        distributed.join("auto", None, None)


def test_a_process_alone_decides_for_itself() -> None:
    assert distributed.coordinator()
    assert [distributed.broadcast(value) for value in (3, False)] == [3, 0]
    tree = {"a": np.ones(2), "key": jax.random.key(0)}
    assert distributed.broadcast_tree(tree) is tree
