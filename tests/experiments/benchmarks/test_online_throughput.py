"""The comparison of ways to learn online, small."""

import csv
import pathlib

import pytest

from experiments.benchmarks import online_throughput
from jaxrl_srpo.errors import UserError


def test_every_way_is_timed_and_written(tmp_path: pathlib.Path) -> None:
    tiny = ["--members=2", "--batch_size=4", "--seconds=0.02", "--repetitions=2", "--environments=pendulum"]
    online_throughput.main([f"--out={tmp_path}", *tiny])
    rows = list(csv.DictReader((tmp_path / "online_throughput.csv").read_text().splitlines()))
    assert [(row["what"], row["members"]) for row in rows] == [
        *[(online_throughput.SEQUENTIAL, "1")] * 2,
        *[("population", "2")] * 2,
    ]
    assert all(float(row["steps_per_second"]) > 0 for row in rows)
    assert "| pendulum | population | 2 |" in (tmp_path / "online_throughput.md").read_text()
    assert (tmp_path / "online_throughput.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("flag", ["--members=none", "--members=0"])
def test_bad_input_is_refused(flag: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="--members="):
        online_throughput.main([f"--out={tmp_path / 'out'}", flag])
    assert not (tmp_path / "out").exists()
