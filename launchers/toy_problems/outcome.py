"""What a toy hands back, whichever it is."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from matplotlib.figure import Figure


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
