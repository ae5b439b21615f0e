"""Star-shaped navigation in pure JAX: a point that starts in a round center from which halls lead away.

The task of State Marginal Matching (arXiv 1906.05274): a policy that wanders never sees the end of a hall, one that is
drawn to what is rare walks down every one of them. It differs from the paper's, which runs on Box2D:
  - no momentum: an action moves the point by 0.5 units at most along each axis; Box2D applies a force to a damped disc
    of radius 0.1, which at full force needs about 10 of 50 steps for the 12 units to the end of a hall;
  - the point has no extent, so that halls are as wide as their walls are apart;
  - walls slide: of a move into a wall the part along it remains. Halls are flat at their ends;
  - from the center a hall is entered between its walls, extended to the middle; elsewhere the rim is a wall. A move
    never crosses two walls, however close the halls are;
  - the reward is 1 in a goal and 0 elsewhere; the paper divides by the number of goals;
  - an episode takes 100 steps and does not terminate; the paper's rollouts stop after 50.
Stride, steps and hall length decide how hard exploration is: name them with every figure.
"""

import functools
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl_srpo.envs.functional import Step
from jaxrl_srpo.envs.marginals import Grid
from jaxrl_srpo.errors import UserError
from jaxrl_srpo.types import Array, Spec

GOAL_RADIUS = 0.5
_TOLERANCE = 1e-4
# Units; what rounding leaves of an overlap where a wall lies on the edge of a bin.
_ROUNDING = 1e-6


class Star(NamedTuple):
    """Shape and dynamics of a star; hashable, for compiled programs.

    Attributes:
      halls: their number; hall k leads away at the angle 2 pi k / halls.
      length: from the rim of the center to the end of a hall.
      width: of a hall.
      radius: of the center.
      stride: distance that an action of 1 moves the point along its axis.
      max_episode_steps: length of an episode.
    """

    halls: int = 3
    length: float = 10.0
    width: float = 1.0
    radius: float = 2.0
    stride: float = 0.5
    max_episode_steps: int = 100

    @property
    def spec(self) -> Spec:
        """Sizes of observation, x and y, and action."""
        return Spec(2, 2)

    @property
    def reach(self) -> float:
        """Distance of the end of a hall from the middle."""
        return self.radius + self.length

    def check(self) -> "Star":
        """This star.

        Raises:
          UserError: no such star can be built, or halls would overlap outside the center.
        """
        if self.halls < 1 or min(self.length, self.width, self.radius, self.stride, self.max_episode_steps) <= 0:
            raise UserError(f"star: {self}: needs at least one hall, and lengths, stride and steps above 0")
        if self.width > 2.0 * self.radius * math.sin(math.pi / max(self.halls, 2)):
            room = f"around a center of radius {self.radius}; choose fewer or narrower halls, or a larger radius"
            raise UserError(f"star: {self.halls} halls of width {self.width} overlap {room}")
        return self

    def reset(self, key: Array) -> Array:
        """Every episode starts in the middle; the state is the position [2]."""
        return jnp.zeros(2)

    def observe(self, state: Array) -> Array:
        """The position [2]."""
        return state

    def step(self, state: Array, action: Array) -> Step:
        """A move by `action` [2], clipped to [-1, 1]; the reward is 1 in the goal at the end of any hall."""
        position = self.move(state, action)
        return Step(position, jnp.any(self.in_goals(position)).astype(jnp.float32), jnp.zeros((), bool))

    def move(self, position: Any, action: Any, xp: Any = jnp) -> Any:
        """Where an action [2], clipped to [-1, 1], takes the point at `position` [2]; `xp` is jax.numpy or NumPy."""
        return self._nearest(position, position + self.stride * xp.clip(action, -1.0, 1.0), xp)

    def place(self, hall: int, distance: float) -> np.ndarray:
        """The point [2] in the middle of a hall, so far from the middle of the star."""
        return distance * self._directions()[hall]

    def in_goals(self, positions: Array) -> Array:
        """Whether positions [..., 2] are in each hall's goal, a disc around the middle of its end; [..., halls]."""
        goals = jnp.asarray(self.reach * self._directions())
        goals = goals.reshape((1,) * (positions.ndim - 1) + goals.shape)
        return jnp.sum((positions[..., None, :] - goals) ** 2, axis=-1) <= GOAL_RADIUS**2

    def grid(self) -> Grid:
        """Bins of one unit whose edges are whole numbers, over the square around the star."""
        side = math.ceil(self.reach)
        return Grid((-float(side),) * 2, 1.0, (2 * side, 2 * side), (0, 1))

    def reachable(self) -> np.ndarray:
        """The bins of `grid` that share an area with the star, bool [bins]: 84 in the default star, H <= log 84 = 4.43.

        A sliver is enough if it is wider than 1e-6 units; a common point or edge is not. `Grid.bins` gives an edge to
        the bin above it, so a visit to a wall that lies on an edge may count to a bin that is not among these. In the
        default star that is the top of the center, around (0, 2): about 2 of 100 000 visits of a random walk.
        """
        return _reachable(self)

    def contains(self, positions: np.ndarray) -> np.ndarray:
        """Whether positions [..., 2] are within the walls, bool [...]."""
        along, across = self._hall_coordinates(positions)
        in_hall = (along >= 0.0) & (along <= self.reach) & (np.abs(across) <= self.width / 2.0)
        return in_hall.any(-1) | (np.sum(positions**2, axis=-1) <= self.radius**2)

    def _directions(self) -> np.ndarray:
        angles = 2.0 * np.pi * np.arange(self.halls) / self.halls
        return np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)

    def _hall_coordinates(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances along and across every hall [..., halls]."""
        cos, sin = self._directions().T
        x, y = positions[..., :1], positions[..., 1:]
        return x * cos + y * sin, y * cos - x * sin

    def _nearest(self, position: Any, moved: Any, xp: Any) -> Any:
        """The point closest to `moved` within the center or the halls, whichever of them hold `position`."""
        pieces = self._projections(moved, xp)
        holds = xp.sum((self._projections(position, xp) - position[None]) ** 2, axis=-1) <= _TOLERANCE**2
        distances = xp.sum((pieces - moved[None]) ** 2, axis=-1)
        return pieces[xp.argmin(xp.where(holds, distances, xp.inf))]

    def _projections(self, point: Any, xp: Any) -> Any:
        """The closest points [1 + halls, 2] to `point` [2] of the center and of every hall; all of them are convex."""
        directions = xp.asarray(self._directions())
        normals = xp.stack([-directions[:, 1], directions[:, 0]], axis=-1)
        along = xp.clip(directions @ point, 0.0, self.reach)
        across = xp.clip(normals @ point, -self.width / 2.0, self.width / 2.0)
        halls = along[:, None] * directions + across[:, None] * normals
        distance = xp.sqrt(xp.sum(point**2))
        center = point * xp.minimum(1.0, self.radius / xp.maximum(distance, self.radius))
        return xp.concatenate([center[None], halls])


@functools.lru_cache
def _reachable(star: Star) -> np.ndarray:
    """Exact: the closest point of a bin for the center, and for a hall the separating axes of two rectangles."""
    grid, directions = star.grid(), star._directions().astype(np.float64)
    centers, half = grid.centers().astype(np.float64), grid.width / 2.0
    in_center = np.linalg.norm(np.maximum(np.abs(centers) - half, 0.0), axis=-1) < star.radius - _ROUNDING
    # Half of what a bin measures along and across a hall [halls], and a hall along x and y [halls, 2].
    shares = np.abs(directions)
    bin_extent = half * shares.sum(-1)
    hall_extent = (star.reach * shares + star.width * shares[:, ::-1]) / 2.0
    along, across = star._hall_coordinates(centers)
    middles = star.reach / 2.0 * directions
    gaps = [
        np.abs(along - star.reach / 2.0) - star.reach / 2.0 - bin_extent,
        np.abs(across) - star.width / 2.0 - bin_extent,
        *np.moveaxis(np.abs(centers[:, None] - middles) - hall_extent - half, -1, 0),
    ]
    return in_center | (np.max(gaps, axis=0) < -_ROUNDING).any(-1)
