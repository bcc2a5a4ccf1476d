"""A learner's metrics on their way to the log and to the display."""

import itertools
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

from acme_qsm.experiments import counts

_MASS_BEYOND_ATOMS = "mass_beyond_atoms"
# Rare rewards leave a bit there, also while critics know nothing yet; returns
# that do not fit soon leave most of it.
_MOST_BEYOND_ATOMS = 0.01


def select(row: Mapping[str, Any]) -> dict[str, Any]:
  """The metrics of a row: each single number in it that is no count.

  Args:
    row: values by name. None is fetched from a device.

  Returns:
    The metrics by name.
  """
  return {
    name: value
    for name, value in row.items()
    if not counts.is_count(name)
    and np.dtype(getattr(value, "dtype", type(value))).kind in "biuf"
    and np.size(value) == 1
  }


def every(period: int) -> Callable[[], bool]:
  """Says yes once in so many times, first of all at the first."""
  times = itertools.count()
  return lambda: next(times) % period == 0


def every_seconds(
  period: float, clock: Callable[[], float] = time.monotonic
) -> Callable[[], bool]:
  """Says yes once in so many seconds, first of all at once."""
  last = float("-inf")

  def is_due() -> bool:
    nonlocal last
    now = clock()
    if now - last < period:
      return False
    last = now
    return True

  return is_due


def _warning(row: Mapping[str, Any]) -> str | None:
  """What is wrong with a learner's metrics, in a line; None if nothing is.

  What it looks at is fetched from its device.
  """
  mass = float(row.get(_MASS_BEYOND_ATOMS, 0.0))
  if mass <= _MOST_BEYOND_ATOMS:
    return None
  return (
    f"Warning: {mass:.1%} of the critics' target is beyond the ends of "
    "their atoms: lower min_value or raise max_value, so that returns fit."
  )


class SampledLogger:
  """Remembers the last row, and passes on every row that is due.

  Of the rows that it passes on, it warns of the first with which something is
  wrong.

  Attributes:
    last: the last row.
  """

  def __init__(
    self,
    logger: Any,
    is_due: Callable[[], bool],
    warn: Callable[[str], None] | None = None,
  ):
    """Initialises the logger.

    Args:
      logger: gets the rows that are due.
      is_due: asked once for each row.
      warn: is told what is wrong, once; None to look for nothing.
    """
    self._logger = logger
    self._is_due = is_due
    self._warn = warn
    self.last: Mapping[str, Any] = {}

  def write(self, data: Mapping[str, Any]) -> None:
    """Takes a row."""
    self.last = data
    if not self._is_due():
      return
    self._logger.write(data)
    if self._warn is not None and (message := _warning(data)) is not None:
      self._warn(message)
      self._warn = None

  def close(self) -> None:
    """Closes the logger behind it."""
    self._logger.close()


class NoLogger:
  """Logs nothing."""

  def write(self, data: Mapping[str, Any]) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""
