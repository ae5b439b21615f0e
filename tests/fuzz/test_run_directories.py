"""Damaged run directories through the command line; `python -m tests.fuzz.run_directories` tries all kinds."""

import random

from tests.fuzz import run_directories
from tests.fuzz.run_directories import DAMAGES, Base

# Kinds that the command refuses at once, and one that it goes on from; the others take longer.
SAMPLE = [damage for damage in DAMAGES if damage.refused] + [
    damage for damage in DAMAGES if damage.name in ("checkpoints: a bit", "results: a bit", "sweep.json: a bit")
]


def test_damaged_directories_are_refused_in_one_line_or_end_as_the_whole_run(run_base: Base) -> None:
    dice = random.Random(1)
    outcomes = [run_directories.try_damage(run_base, damage, dice) for damage in SAMPLE]
    faults = [f"{outcome.damage}: {outcome.fault}\n{outcome.said}" for outcome in outcomes if outcome.fault]
    assert not faults, "\n".join(faults)
    assert sum(outcome.code == 2 for outcome in outcomes) >= sum(damage.refused for damage in SAMPLE)


def test_a_fault_is_a_fault(run_base: Base) -> None:
    nothing = run_directories.Damage("nothing", lambda path, dice: None, refused=True)
    assert run_directories.try_damage(run_base, nothing, random.Random(0)).fault == "it was accepted"


def test_a_hundred_directories_are_of_every_kind() -> None:
    assert len(DAMAGES) <= 100
