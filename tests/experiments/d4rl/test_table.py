"""The plan of the published table, what it refuses, and the whole command on a small file."""

import pathlib
import shutil

import pytest

from experiments.d4rl import table
from jaxrl_srpo.data import d4rl
from jaxrl_srpo.envs.datasets import load_dataset
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.methods.contract import Method
from jaxrl_srpo.runs.sweep import Sweep, populations, stages_of, unique
from tests import synthetic
from tests.data.test_download import serving
from tests.report.test_literature import write_run

TINY = ("--preset=quick", "--budget=0.001", "--seeds=0:2", "--beta=0.1", "--episodes=1")


def test_the_published_protocol_has_its_populations() -> None:
    """15 datasets x 6 seeds: Hopper, the two of 17 observations together, and the antmazes with deeper actors."""
    names = d4rl.PAPER
    members = Sweep(names, tuple(range(6)), "paper").members([table.nominal(name) for name in names])
    for stage in stages_of(members):
        sizes = sorted(map(len, populations(unique(members, stage), stage)))
        assert sizes == [18, 36, 36]


def test_a_plan_adds_up(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MEASURED_SECONDS", 0.01)
    dataset = load_dataset(str(synthetic.write_pendulum(tmp_path / "pendulum.hdf5")))
    overrides = {name: (value,) for name, value in synthetic.TINY.items()} | {"beta": (0.1, 0.3)}
    parts = table.plan([Sweep((dataset.source,), (0, 1), "quick", overrides)], [dataset], 0)
    assert [(part.stage, part.members) for part in parts] == [("behavior", 2), ("critic", 2), ("policy", 4)]
    assert all(part.flop > 0 and part.memory > 0 and part.seconds > 0 for part in parts)
    needed = max(part.memory for part in parts)
    table.check_fits(parts, needed)
    with pytest.raises(UserError, match=r"stage of \d members needs .* --members_per_population=\d trains fewer"):
        table.check_fits(parts, 0.6 * needed)
    assert "PFLOP" in table.describe(parts)


def test_methods_whose_presets_agree_share_a_run() -> None:
    def groups(algorithms: list[str], preset: str, name: str) -> list[list[str]]:
        return [[one.name for one in group] for group in table.groups_of(algorithms, preset, [name])]

    # TD3+BC normalizes observations, and neither scales rewards as SRPO and IQL do.
    found = groups(["srpo", "iql", "td3_bc", "rebrac"], "paper", "hopper-medium-v2")
    assert found == [["srpo", "iql"], ["td3_bc"], ["rebrac"]]
    assert groups(["srpo", "iql"], "paper", "antmaze-umaze-v2") == [["srpo", "iql"]]
    (every,) = groups(["all"], "quick", "somewhere/hopper_medium-regen.hdf5")
    assert {"srpo", "iql", "awac", "td3_bc", "rebrac"} <= set(every)
    with pytest.raises(UserError, match="--preset=paper: awac has none of this name"):
        groups(["awac"], "paper", "hopper-medium-v2")
    with pytest.raises(UserError, match="--algorithm: no method has --preset=nothing"):
        groups(["all"], "nothing", "hopper-medium-v2")


def test_runs_of_their_own_end_in_one_table(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As methods whose presets disagree are trained."""
    data = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    trained = []

    def train(names: object, out: pathlib.Path, *rest: object, algorithm: list[Method], **more: object) -> None:
        trained.append((out.name, [method.name for method in algorithm]))
        shutil.copytree(write_run(tmp_path / f"written-{out.name}"), out)

    monkeypatch.setattr("jaxrl_srpo.api.train", train)
    table.main([f"--datasets={data}", "--algorithm=td3_bc,rebrac", f"--out={tmp_path / 'run'}"])
    assert trained == [("td3_bc", ["td3_bc"]), ("rebrac", ["rebrac"])]
    assert "# D4RL beside the literature" in capsys.readouterr().out
    assert (tmp_path / "run" / "report" / "d4rl_table.csv").is_file()


def test_missing_data_are_named_all_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UserError) as caught:
        table.main([f"--out={tmp_path / 'run'}"])
    message = str(caught.value)
    assert all(f"jaxrl-srpo data download {name}" in message for name in d4rl.PAPER)
    assert not (tmp_path / "run").exists()


def test_what_is_missing_is_fetched_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAXRL_SRPO_CACHE", str(tmp_path / "cache"))
    path = synthetic.write_pendulum(tmp_path / "x.hdf5")
    with serving() as server:
        server.content = path.read_bytes()
        monkeypatch.setenv("JAXRL_SRPO_MIRROR", server.url)
        names = "hopper-medium-v2,hopper-expert-v2,nowhere.hdf5"
        # The last one is nobody's, so that nothing is trained.
        with pytest.raises(UserError, match=r"not on this machine: nowhere.hdf5; --download fetches"):
            table.main([f"--datasets={names}", "--download", f"--out={tmp_path / 'run'}"])
    assert table.missing(["hopper-medium-v2", "hopper-expert-v2"]) == []
    said = capsys.readouterr().err
    assert f"hopper-medium-v2: {tmp_path / 'cache' / 'gym_mujoco_v2' / 'hopper_medium-v2.hdf5'}" in said


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--budget=0", "--budget=0.0: must be a positive number"),
        ("--datasets=nowhere.hdf5", "not on this machine: nowhere.hdf5"),
        ("--seeds=", "seed"),
    ],
)
def test_bad_input_is_refused(flag: str, message: str, tmp_path: pathlib.Path) -> None:
    data = synthetic.write_pendulum(tmp_path / "pendulum.hdf5")
    with pytest.raises(UserError, match=message):
        table.main([f"--datasets={data}", *TINY, flag, f"--out={tmp_path / 'run'}"])
