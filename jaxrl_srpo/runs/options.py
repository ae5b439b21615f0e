"""How to run, apart from what to train."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxrl_srpo.data import mirrors
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.io.typed import build, require
from jaxrl_srpo.population.vectorize import Strategy


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run, apart from what to train.

    Attributes:
      artefacts: directory of finished stages shared between runs; None keeps them in the run directory.
      environment: Gymnasium id to evaluate in, for data that does not name one; `module:ID` imports the module first.
      evaluate: False trains only; `evaluate` can follow later, elsewhere.
      allow_invalid_data: train on data that failed its checks.
      mirror: address to download D4RL files from instead of D4RL's own.
      strategy: `vmap`, `map` or `auto`, see `population.vectorize`.
      checkpoint_seconds: least time between two checkpoints of a stage; 0 saves one after every chunk.
      members_per_population: most members trained together, so that several workers have something to do; 0 for all
        that can be.
      drop_reset_rows: leave out rows of HDF5 files that are resets of a vector environment and no transitions.
      track: where live curves go besides the run directory, `tensorboard`, `wandb`; for `train`, not for workers.
    """

    artefacts: pathlib.Path | None = None
    environment: str | None = None
    evaluate: bool = True
    allow_invalid_data: bool = False
    mirror: str | None = None
    strategy: Strategy = "auto"
    checkpoint_seconds: float = 60.0
    members_per_population: int = 0
    track: tuple[str, ...] = ()
    drop_reset_rows: bool = False

    def reading(self) -> dict[str, Any]:
        """The arguments by which every worker reads the same data."""
        return {
            "mirror": self.mirror,
            "allow_invalid": self.allow_invalid_data,
            "env": self.environment,
            "drop_reset_rows": self.drop_reset_rows,
        }

    def __post_init__(self) -> None:
        """Refuses numbers that make no sense.

        Raises:
          UserError: naming the flag.
        """
        if not 0.0 <= self.checkpoint_seconds < math.inf:
            raise UserError(f"--checkpoint_seconds={self.checkpoint_seconds}: must be a finite number, not negative")
        if self.mirror:
            mirrors.refuse_other_roots(self.mirror)
        if self.members_per_population < 0:
            raise UserError(f"--members_per_population={self.members_per_population}: must not be negative")

    def to_json(self) -> dict[str, Any]:
        """The options as a JSON object, for workers anywhere."""
        values = dataclasses.asdict(self)
        del values["track"]
        return values | {"artefacts": None if self.artefacts is None else str(self.artefacts.absolute())}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Options":
        """The inverse of `to_json`.

        Raises:
          UserError: it is not what `to_json` gives.
        """
        where, artefacts = "sweep.json: 'options'", value.get("artefacts")
        require(artefacts, str | None, f"{where}: 'artefacts'")
        options = build(cls, {name: one for name, one in value.items() if name != "artefacts"}, where)
        if options.members_per_population < 0 or not 0 <= options.checkpoint_seconds < math.inf:
            raise UserError(f"{where}: holds a number out of range; restore the file or train again")
        return dataclasses.replace(options, artefacts=None if artefacts is None else pathlib.Path(artefacts))
