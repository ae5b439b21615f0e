"""The same sweep by every launcher, a worker or node killed halfway: complete, and the same as by one process."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from absl import flags

import local
import ray_cluster
import slurm
from jaxrl_srpo.errors import UserError
from tests import run_comparison, synthetic

LAUNCH = pathlib.Path(__file__).resolve().parents[2] / "launch"
LIMIT = 900.0
# Two behavior models, two critics and four policies.
RESULTS = 8
SWEEP: dict[str, Any] = {
    "seeds": "0:2",
    "beta": "0.1,0.3",
    "behavior_steps": 60,
    "critic_steps": 60,
    "policy_steps": 60,
    "log_interval": 10,
    "critic_evaluation_interval": 30,
    "policy_evaluation_interval": 30,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return synthetic.write_pendulum(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


@pytest.fixture(scope="module")
def one_machine(dataset: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The run directory of a single process."""
    out = tmp_path_factory.mktemp("one_machine") / "run"
    result = synthetic.run(synthetic.train_command([dataset], out, **SWEEP))
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture
def prepared(dataset: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A run directory of the same sweep in which nothing is trained."""
    out = tmp_path / "run"
    _, *rest = synthetic.train_command([dataset], out, **SWEEP, members_per_population=1, checkpoint_seconds=0)
    result = synthetic.run(["prepare", *rest])
    assert result.returncode == 0, result.stderr
    assert not list((out / "checkpoints").glob("*"))
    return out


def test_a_worker_of_this_machine_is_killed(prepared: pathlib.Path, one_machine: pathlib.Path) -> None:
    with launched("local.py", prepared) as launcher:
        kill_in_the_middle(prepared, launcher, lambda owner: [owner])
    assert "exit code -9" in output_of(prepared)
    run_comparison.assert_same_but_for_order(prepared, one_machine)
    assert not list((prepared / "checkpoints" / "under_way").iterdir())


def test_a_job_of_submitit_is_killed(prepared: pathlib.Path, one_machine: pathlib.Path) -> None:
    with launched("slurm.py", prepared, "--cluster=local") as launcher:
        kill_in_the_middle(prepared, launcher, lambda owner: [owner])
    # Whether the launcher learns of it before the other job has finished the sweep is left to submitit.
    run_comparison.assert_same_but_for_order(prepared, one_machine)
    assert not list((prepared / "checkpoints" / "under_way").iterdir())


def test_a_node_of_a_ray_cluster_is_killed(prepared: pathlib.Path, one_machine: pathlib.Path) -> None:
    with ray_nodes() as (address, nodes):

        def node_of(owner: psutil.Process) -> list[psutil.Process]:
            """All processes of the second node once the lease is one of its worker's."""
            second = [nodes[1], *nodes[1].children(recursive=True)]
            return second if owner in second else []

        with launched("ray_cluster.py", prepared, f"--address={address}") as launcher:
            kill_in_the_middle(prepared, launcher, node_of)
        assert nodes[0].is_running()
    run_comparison.assert_same_but_for_order(prepared, one_machine)
    assert not list((prepared / "checkpoints" / "under_way").iterdir())


@contextlib.contextmanager
def launched(script: str, run: pathlib.Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """An engine with two workers; at the end it has ended well."""
    command = [sys.executable, str(LAUNCH / script), str(run), "--cpu_devices=1", *arguments]
    with (run.parent / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment())
    try:
        yield process
        assert process.wait(LIMIT) == 0, output_of(run)
    finally:
        process.terminate()
        process.wait()


def environment() -> dict[str, str]:
    return synthetic.environment() | {"RAY_USAGE_STATS_ENABLED": "0"}


def output_of(run: pathlib.Path) -> str:
    return (run.parent / "log.txt").read_text()


def kill_in_the_middle(
    run: pathlib.Path,
    launcher: subprocess.Popen[bytes],
    victims: Callable[[psutil.Process], list[psutil.Process]],
) -> None:
    """Kills once something is finished and a victim trains something else; what was finished stays as it was."""
    deadline = time.monotonic() + LIMIT
    killed: list[psutil.Process] = []
    while not killed:
        assert launcher.poll() is None, output_of(run)
        assert time.monotonic() < deadline, output_of(run)
        time.sleep(0.02)
        before = stamps(run)
        if 0 < len(before) < RESULTS - 1:
            killed = [process for owner in owners(run) for process in victims(owner)]
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    assert launcher.wait(LIMIT) == 0, output_of(run)
    assert before.items() <= stamps(run).items()


def stamps(run: pathlib.Path) -> dict[pathlib.Path, int]:
    """When each finished result was written."""
    saved = [path for path in (run / "checkpoints").glob("*/*") if path.parent.name != "under_way"]
    results = [path for path in saved if path.name.isalnum()]
    return {path: path.stat().st_mtime_ns for path in results}


def owners(run: pathlib.Path) -> list[psutil.Process]:
    """The processes that have saved a checkpoint of what they train now."""
    under_way = run / "checkpoints" / "under_way"
    found = []
    for path in [path for path in (run / "leases").glob("*-*") if list((under_way / path.name).glob("[0-9]*"))]:
        with contextlib.suppress(FileNotFoundError, IndexError, psutil.NoSuchProcess):
            found.append(psutil.Process(int(path.read_text().split(" ")[1])))
    return found


@contextlib.contextmanager
def ray_nodes() -> Iterator[tuple[str, list[psutil.Process]]]:
    """Address and processes of a Ray cluster of two nodes with one core each."""
    port = run_comparison.free_port()
    common = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
    head = ["--head", f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    nodes: list[psutil.Process] = []
    try:
        for own in (head, [f"--address=127.0.0.1:{port}", "--node-ip-address=127.0.0.1"]):
            command = [sys.executable, "-m", "ray.scripts.scripts", "start", *own, *common]
            nodes.append(psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()))
        yield f"127.0.0.1:{port}", nodes
    finally:
        running = [process for node in nodes if node.is_running() for process in node.children(recursive=True)]
        for process in [*running, *nodes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([*running, *nodes])


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("local.py", [], "takes exactly one RUN_DIR, 0 were given"),
        ("local.py", ["nowhere"], "nowhere is not a run directory"),
        (
            "slurm.py",
            ["run\n#SBATCH --wrap=id"],
            r"'.*run\\n#SBATCH.*': a line break in its name would become a line of",
        ),
        ("local.py", ["RUN", "--workers=0"], "workers"),
        ("slurm.py", ["RUN", "--cluster=pbs"], "cluster.*pbs.*slurm.*local"),
        ("ray_cluster.py", ["RUN", "--address=nowhere"], "--address=nowhere: give HOST:PORT"),
        ("slurm.py", ["RUN"], "--cluster=slurm: .*sbatch|--cluster=slurm: .*srun"),
    ],
)
def test_a_mistake_gives_one_line(
    script: str, arguments: list[str], message: str, one_machine: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [str(one_machine) if argument == "RUN" else argument for argument in arguments]
    main = {"local.py": local.main, "slurm.py": slurm.main, "ray_cluster.py": ray_cluster.main}[script]
    monkeypatch.setenv("PATH", str(one_machine))
    with pytest.raises((UserError, flags.Error), match=re.compile(message, re.S)):
        main(given)


@pytest.mark.parametrize(("module", "main"), [("submitit", slurm.main), ("ray", ray_cluster.main)])
def test_an_engine_that_is_not_installed_is_named_with_its_extra(
    module: str, main: Callable[[list[str]], None], one_machine: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"is not installed; pip install 'jaxrl-srpo\[(slurm|ray)\]'"):
        main([str(one_machine)])


def test_the_cluster_of_one_machine_trusts_no_folder_of_others(tmp_path: pathlib.Path) -> None:
    """Its pid files are read by root, who kills what they name."""
    script = pathlib.Path(__file__).parents[2] / "launch" / "slurm_one_node.sh"
    foreign, link, own = tmp_path / "foreign", tmp_path / "link", tmp_path / "own"
    foreign.mkdir()
    foreign.chmod(0o777)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (foreign / "slurmd.pid").write_text(f"{victim.pid}\n")
        link.symlink_to(foreign)
        for folder, status in ((foreign, 2), (link, 2), (own, 0)):
            variables = {"SLURM_ONE_NODE": str(folder), "PATH": os.environ["PATH"]}
            ended = subprocess.run(["bash", script, "stop"], env=variables, capture_output=True, text=True, check=False)
            assert (ended.returncode, "must be a folder of this user" in ended.stderr) == (status, status == 2)
        assert victim.poll() is None
        assert own.stat().st_mode & 0o777 == 0o700
    finally:
        victim.kill()
        victim.wait()
