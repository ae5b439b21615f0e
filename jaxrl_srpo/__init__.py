"""Score Regularized Policy Optimization for whole populations at once, in JAX.

Example:
    jaxrl_srpo.train("pointmaze/umaze", out="runs/umaze", seeds=range(4), beta=[0.01, 0.03])
    policy = jaxrl_srpo.load_policy("runs/umaze", seed=0, beta=0.03)
    actions = policy(observation)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_srpo.api import evaluate, export_policy, load_policy, prepare, train
    from jaxrl_srpo.data.dataset import Dataset
    from jaxrl_srpo.envs.datasets import load_dataset
    from jaxrl_srpo.errors import DatasetError, UserError
    from jaxrl_srpo.methods.contract import Method, Preset, Stage
    from jaxrl_srpo.methods.settings import setting
    from jaxrl_srpo.report.frames import load_results
    from jaxrl_srpo.runs.options import Options
    from jaxrl_srpo.runs.policies import Policy
    from jaxrl_srpo.runs.workers import work
    from jaxrl_srpo.selection.choosing import select

__version__ = "0.2.0.dev0"

__all__ = [
    "Dataset",
    "DatasetError",
    "Method",
    "Options",
    "Policy",
    "Preset",
    "Stage",
    "UserError",
    "evaluate",
    "export_policy",
    "load_dataset",
    "load_policy",
    "load_results",
    "prepare",
    "select",
    "setting",
    "train",
    "work",
]

_MODULES = {
    "Dataset": "jaxrl_srpo.data.dataset",
    "DatasetError": "jaxrl_srpo.errors",
    "Method": "jaxrl_srpo.methods.contract",
    "Options": "jaxrl_srpo.runs.options",
    "Policy": "jaxrl_srpo.runs.policies",
    "Preset": "jaxrl_srpo.methods.contract",
    "Stage": "jaxrl_srpo.methods.contract",
    "UserError": "jaxrl_srpo.errors",
    "evaluate": "jaxrl_srpo.api",
    "export_policy": "jaxrl_srpo.api",
    "load_dataset": "jaxrl_srpo.envs.datasets",
    "load_policy": "jaxrl_srpo.api",
    "load_results": "jaxrl_srpo.report.frames",
    "prepare": "jaxrl_srpo.api",
    "select": "jaxrl_srpo.selection.choosing",
    "setting": "jaxrl_srpo.methods.settings",
    "train": "jaxrl_srpo.api",
    "work": "jaxrl_srpo.runs.workers",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for on first use, so that importing the package itself costs nothing."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES[name]), name)
