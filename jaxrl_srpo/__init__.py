"""Score Regularized Policy Optimization for whole populations at once, in JAX.

import jaxrl_srpo

jaxrl_srpo.train("pointmaze/umaze", out="runs/umaze", seeds=range(4), beta=[0.05, 0.1])
policy = jaxrl_srpo.load_policy("runs/umaze", seed=0, beta=0.1)
actions = policy(observation)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl_srpo.api import Options, Policy, evaluate, load_policy, train
    from jaxrl_srpo.data.loading import load_dataset
    from jaxrl_srpo.errors import DatasetError, UserError

__all__ = ["DatasetError", "Options", "Policy", "UserError", "evaluate", "load_dataset", "load_policy", "train"]

_MODULES = {
    "load_dataset": "jaxrl_srpo.data.loading",
    "DatasetError": "jaxrl_srpo.errors",
    "UserError": "jaxrl_srpo.errors",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for on first use, so that importing the package itself costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULES.get(name, "jaxrl_srpo.api")), name)
