"""Datasets: files and Minari ids to validated transitions, without importing any environment."""

from jaxrl_srpo.data.dataset import Dataset, EnvironmentSpec, ReferenceReturns
from jaxrl_srpo.data.loading import read_dataset
from jaxrl_srpo.data.observations import flatten_observation
from jaxrl_srpo.data.rewards import default_transform, transform_rewards
from jaxrl_srpo.data.validation import check_fits

__all__ = [
    "Dataset",
    "EnvironmentSpec",
    "ReferenceReturns",
    "check_fits",
    "default_transform",
    "flatten_observation",
    "read_dataset",
    "transform_rewards",
]
