"""Timing on machines that other work shares: medians, spreads and ratios."""

import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import numpy as np


class Seconds(NamedTuple):
  """How long one call took, over repeats.

  Attributes:
    median: the middle one.
    low: the 10th percentile.
    high: the 90th percentile.
  """

  median: float
  low: float
  high: float

  def describe(self) -> dict[str, float]:
    """In milliseconds, as JSON can hold it."""
    return {name: 1e3 * value for name, value in self._asdict().items()}


def measure(
  functions: Mapping[str, Callable[[], Any]],
  *,
  repeats: int,
  seconds: float,
) -> dict[str, list[float]]:
  """Times functions in turn, so that whatever else runs slows all alike.

  Args:
    functions: what to call, by name. Each is called until what it returned is
      ready, as often in a row as fills its share of the time.
    repeats: how often each has its turn.
    seconds: how long each turn is.

  Returns:
    By name, the seconds per call of each turn.
  """
  counts = {}
  for name, function in functions.items():
    jax.block_until_ready(function())
    start = time.perf_counter()
    jax.block_until_ready(function())
    counts[name] = max(1, int(seconds / (time.perf_counter() - start)))
  found: dict[str, list[float]] = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():
      result = None
      start = time.perf_counter()
      for _ in range(counts[name]):
        result = function()
      jax.block_until_ready(result)
      found[name].append((time.perf_counter() - start) / counts[name])
  return found


def summarize(seconds: list[float]) -> Seconds:
  """The median and the spread of several measurements."""
  low, median, high = np.percentile(seconds, [10, 50, 90])
  return Seconds(float(median), float(low), float(high))
