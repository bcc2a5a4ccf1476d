"""Timing on machines that other work shares: medians, spreads and ratios."""

import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
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


def compare(
  turns: Sequence[Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
  """Compares what was measured in turn.

  Args:
    turns: in each, by the name of a case, its rates by name; the same cases and
      rates in all.

  Returns:
    By case, the median of each rate, and of its ratio to that of the first case
    in the same turn, which had the same machine.
  """
  first = next(iter(turns[0]))

  def describe(case: str) -> dict[str, float]:
    found = {}
    for name in turns[0][case]:
      rates = [turn[case][name] for turn in turns]
      others = [turn[first][name] for turn in turns]
      found[name] = statistics.median(rates)
      found[f"{name}_ratio"] = statistics.median(
        rate / other for rate, other in zip(rates, others, strict=True)
      )
    return found

  return {case: describe(case) for case in turns[0]}


def summarize(seconds: list[float]) -> Seconds:
  """The median and the spread of several measurements."""
  low, median, high = np.percentile(seconds, [10, 50, 90])
  return Seconds(float(median), float(low), float(high))
