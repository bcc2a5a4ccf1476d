"""What a toy hands back, and what the pictures of toys have in common."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acme_qsm.experiments.records import plotting

LEARNT = {"fill": True, "color": plotting.COLORS[5], "alpha": 0.8}
"""How bars of what was drawn look."""


class Outcome(NamedTuple):
  """What was found.

  Attributes:
    numbers: what result.json holds.
    rows: the same, or what of it fits, as a table of equal keys.
    picture: what was drawn.
  """

  numbers: Mapping[str, Any]
  rows: Sequence[Mapping[str, Any]]
  picture: Figure


def by_alpha(
  rows: Sequence[Mapping[str, Any]], *names: str
) -> dict[str, dict[str, Any]]:
  """Columns of rows whose first is alpha: by name, what there is by alpha."""
  return {
    name: {str(row["alpha"]): row[name] for row in rows} for name in names
  }


def label(panel: Axes, x: str, y: str | None = None) -> None:
  """Names a panel's axes, and leaves it two of its four sides."""
  panel.set_xlabel(x)
  panel.set_ylabel(y or "")
  panel.spines[["top", "right"]].set_visible(False)


def draw_sorted(
  panel: Axes, alphas: Sequence[float], values: Sequence[float], **style: Any
) -> None:
  """Draws a line of values over alpha."""
  order = np.argsort(alphas)
  panel.plot(
    *(np.asarray(alphas)[order], np.asarray(values)[order]),
    linewidth=2,
    **style,
  )


def draw_points(
  panel: Axes,
  points: np.ndarray,
  axis: np.ndarray,
  density: np.ndarray,
  levels: Sequence[float],
  **style: Any,
) -> None:
  """Draws points of the plane over a density's contours.

  Args:
    panel: where.
    points: [N, 2], of which 3 000 are drawn.
    axis: [M] either coordinate of the density's grid.
    density: [M, M].
    levels: those of the contours.
    **style: of the points.
  """
  panel.scatter(
    *points[:3_000].T,
    linewidths=0,
    alpha=0.5,
    color=plotting.COLORS[0],
    **style,
  )
  panel.contour(
    *(axis, axis, density),
    levels=levels,
    colors=plotting.COLORS[1],
    linewidths=1.2,
  )
  panel.set_aspect("equal")
  panel.set_xlabel("first coordinate")
  panel.set_ylabel("second coordinate")
