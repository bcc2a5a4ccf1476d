"""A learner's metrics on their way to the log, and to who watches the run."""

import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

from acme_qsm.experiments import counts


def select(row: Mapping[str, Any]) -> dict[str, Any]:
  """The metrics of a row: its numbers, but for what is counted.

  Args:
    row: values by name. None is fetched from a device.

  Returns:
    Those that are one number, by name.
  """
  return {
    name: value
    for name, value in row.items()
    if not counts.is_count(name) and _is_number(value)
  }


def _is_number(value: Any) -> bool:
  kind = np.dtype(getattr(value, "dtype", type(value))).kind
  return kind in "biuf" and np.size(value) == 1


def every(period: int) -> Callable[[], bool]:
  """Says yes once in so many times, first of all at the first."""
  times = -1

  def is_due() -> bool:
    nonlocal times
    times += 1
    return times % period == 0

  return is_due


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


class SampledLogger:
  """Remembers the last row, and passes some on.

  Attributes:
    last: the last row.
  """

  def __init__(self, logger: Any, is_due: Callable[[], bool]):
    """Initialises the logger.

    Args:
      logger: gets the rows that are due.
      is_due: asked once for each row.
    """
    self._logger = logger
    self._is_due = is_due
    self.last: Mapping[str, Any] = {}

  def write(self, data: Mapping[str, Any]) -> None:
    """Takes a row."""
    self.last = data
    if self._is_due():
      self._logger.write(data)

  def close(self) -> None:
    """Closes the logger behind it."""
    self._logger.close()


class NoLogger:
  """Logs nothing."""

  def write(self, data: Mapping[str, Any]) -> None:
    """Does nothing."""

  def close(self) -> None:
    """Does nothing."""
