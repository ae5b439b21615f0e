"""The wrappers of Gymnasium under which data were recorded, around the environment again."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrl_srpo.data.dataset import WrapperSpec
from jaxrl_srpo.errors import UserError, first_line

if TYPE_CHECKING:
    import gymnasium

# They change what a policy sees, does or earns, and keep nothing from one episode to the next.
_REBUILT = (
    "ClipAction",
    "ClipReward",
    "DelayObservation",
    "FilterObservation",
    "FlattenObservation",
    "FrameStackObservation",
    "RepeatAction",
    "RescaleAction",
    "RescaleObservation",
    "ReshapeObservation",
    "StickyAction",
    "TimeAwareObservation",
)
# They record, show, check or change the type of numbers.
_WITHOUT_EFFECT = (
    "DtypeObservation",
    "HumanRendering",
    "OrderEnforcing",
    "PassiveEnvChecker",
    "RecordEpisodeStatistics",
    "RecordVideo",
    "RenderCollection",
)


def wrap(environment: "gymnasium.Env", wrappers: tuple[WrapperSpec, ...]) -> "gymnasium.Env":
    """The environment in its wrappers, innermost first; those that only record or show are left out.

    Nothing but these classes of Gymnasium's is ever made, whatever a file names.

    Raises:
      UserError: a wrapper cannot be rebuilt from what the recording tells of it.
    """
    import gymnasium.wrappers

    for spec in wrappers:
        if spec.name in _WITHOUT_EFFECT:
            continue
        if spec.name not in _REBUILT or spec.kwargs is None:
            raise UserError(
                f"the data were recorded under the wrapper {spec.name}, which cannot be rebuilt from their metadata; "
                "register an environment that has it and name that with --env"
            )
        try:
            environment = getattr(gymnasium.wrappers, spec.name)(environment, **_arguments(spec.kwargs))
        # What a wrapper raises at arguments that a file names has no common base.
        except Exception as error:
            reason = first_line(error)
            raise UserError(f"the wrapper {spec.name} cannot be made with {spec.kwargs}: {reason}") from error
    return environment


def _arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments as they were before JSON made lists of arrays and of tuples; bounds in float32, as actions."""

    def value(name: str, given: Any) -> Any:
        if name.endswith(("_action", "_obs")):
            return np.asarray(given, np.float32) if isinstance(given, list) else np.float32(given)
        return tuple(given) if isinstance(given, list) else given

    return {name: value(name, given) for name, given in kwargs.items()}
