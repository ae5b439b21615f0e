"""Score Regularized Policy Optimization for whole populations at once, in JAX.

Example:
    jaxrl_srpo.train("pointmaze/umaze", out="runs/umaze", seeds=range(4), beta=[0.01, 0.03])
    policy = jaxrl_srpo.load_policy("runs/umaze", seed=0, beta=0.03)
    actions = policy(observation)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_srpo.api import evaluate, prepare, train
    from jaxrl_srpo.data.loading import load_dataset
    from jaxrl_srpo.errors import DatasetError, UserError
    from jaxrl_srpo.runs.options import Options
    from jaxrl_srpo.runs.policies import Policy, load_policy
    from jaxrl_srpo.runs.workers import work

__version__ = "0.2.0.dev0"

__all__ = [
    "DatasetError",
    "Options",
    "Policy",
    "UserError",
    "evaluate",
    "load_dataset",
    "load_policy",
    "prepare",
    "train",
    "work",
]

_MODULES = {
    "Options": "jaxrl_srpo.runs.options",
    "Policy": "jaxrl_srpo.runs.policies",
    "load_policy": "jaxrl_srpo.runs.policies",
    "load_dataset": "jaxrl_srpo.data.loading",
    "DatasetError": "jaxrl_srpo.errors",
    "UserError": "jaxrl_srpo.errors",
    "work": "jaxrl_srpo.runs.workers",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for on first use, so that importing the package itself costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES.get(name, "jaxrl_srpo.api")), name)
