"""Names of datasets that are made on this machine, and the forms that a dataset's name may take."""

EMBEDDED = ("pointmaze/umaze", "pointmaze/medium", "pointmaze/large")
"""Datasets that `envs.pointmaze` makes in seconds."""

REGENERATED = "regenerated/"
"""Prefix of the Minari datasets that `exploration.regenerated` makes."""

FORMS = "an .hdf5 file, a D4RL name (hopper-medium-v2), a Minari id (D4RL/door/human-v2) or pointmaze/umaze"
"""What a dataset may be called, for messages."""


def is_made_here(name: str) -> bool:
    """Whether `jaxrl-srpo data make NAME` makes a dataset; all others are downloaded."""
    return name in EMBEDDED or name.startswith(REGENERATED)
