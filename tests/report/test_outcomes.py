"""Who diverged or was not trained, as `sweep.json` tells."""

import json
from typing import Any

import pytest

from jaxrl_srpo.errors import UserError
from jaxrl_srpo.report.outcomes import Diverged, NotTrained
from jaxrl_srpo.report.records import Result
from tests.report import written_run

MAZE = Result("policy", "pointmaze/umaze", 0, "expectile=0.9;policy_learning_rate=3e+38", 0.1)


class TestDiverged:
    @pytest.fixture
    def entries(self) -> list[Any]:
        """One member as this version and as earlier ones write it."""
        cells = {"setting": MAZE.setting, "beta": "0.1", "update": 300}
        return [
            {"stage": "policy", "dataset": "pointmaze/umaze", "seed": 0, **cells},
            "srpo pointmaze/umaze seed=0 beta=0.1 expectile=0.9 policy_learning_rate=3e+38",
        ]

    @pytest.mark.parametrize("which", [0, 1])
    def test_only_the_very_member_is_marked(self, entries: list[Any], which: int) -> None:
        diverged = Diverged({"diverged": [entries[which]], "stages": written_run.STAGES})
        assert diverged.has(MAZE, "srpo")
        others = (
            MAZE._replace(dataset="umaze"),
            MAZE._replace(dataset="pointmaze/umaze-v2"),
            MAZE._replace(seed=1),
            MAZE._replace(beta=0.10001),
            MAZE._replace(beta=None),
            MAZE._replace(setting="expectile=0.9"),
            MAZE._replace(setting=""),
        )
        assert not any(diverged.has(other, "srpo") for other in others)
        assert not diverged.has(MAZE._replace(stage="srpo_online"), "srpo_online")

    def test_readers_get_names_and_updates(self, entries: list[Any]) -> None:
        diverged = Diverged({"diverged": entries, "stages": written_run.STAGES})
        assert diverged.names == [f"{entries[1]} at update 300", entries[1]]
        json.dumps(diverged.names)

    def test_updates_are_known_where_they_were_written(self, entries: list[Any]) -> None:
        new, old = (Diverged({"diverged": [entry], "stages": written_run.STAGES}) for entry in entries)
        assert new.update_of(MAZE, "srpo") == 300
        assert old.update_of(MAZE, "srpo") == -1
        assert new.update_of(MAZE._replace(seed=1), "srpo") is None

    def test_who_was_not_trained_is_known_with_the_reason(self, entries: list[Any]) -> None:
        entry = entries[0] | {"because": "critic"}
        found = NotTrained({"not_trained": [entry], "stages": written_run.STAGES})
        assert found.results == {MAZE: "its critic diverged at update 300"}
        assert found.names == [f"{entries[1]} (its critic diverged at update 300)"]
        assert NotTrained({}).results == {}
        with pytest.raises(UserError, match="in 'not_trained' names no member"):
            NotTrained({"not_trained": ["x"], "stages": written_run.STAGES})

    def test_damage_is_named(self) -> None:
        with pytest.raises(UserError, match=r"\{'stage': 'policy'\} in 'diverged' names no member"):
            Diverged({"diverged": [{"stage": "policy"}], "stages": written_run.STAGES})
