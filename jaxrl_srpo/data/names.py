"""Names of datasets that are made on this machine, and the forms that a dataset's name may take."""

import re

EMBEDDED = ("pointmaze/umaze", "pointmaze/medium", "pointmaze/large")
"""Datasets that `envs.pointmaze` makes in seconds."""

REGENERATED = "regenerated/"
"""Prefix of the Minari datasets that `exploration.regenerated` makes."""

OGBENCH = re.compile(
    r"(visual-)?((pointmaze|antmaze|humanoidmaze|antsoccer)-\w+-(navigate|stitch|explore)|"
    r"(cube-\w+|scene|puzzle-\w+|powderworld-\w+)-(play|noisy))(-singletask(-task\d)?|-oraclerep)?-v\d+"
)
"""Names of OGBench's datasets, such as `cube-single-play-singletask-v0`."""

FORMS = "an .hdf5 or .npz file, a D4RL name (hopper-medium-v2), a Minari id (D4RL/door/human-v2) or pointmaze/umaze"
"""What a dataset may be called, for messages."""


def is_made_here(name: str) -> bool:
    """Whether `jaxrl-srpo data make NAME` makes a dataset; all others are downloaded."""
    return name in EMBEDDED or name.startswith(REGENERATED)
