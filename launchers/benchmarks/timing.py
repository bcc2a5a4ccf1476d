"""Timing on machines that other work shares: medians, spreads and ratios."""

import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
from typing import Any
from typing import NamedTuple

import jax
import numpy as np


class Effort(NamedTuple):
  """How much is measured.

  Attributes:
    quick: whether fewer cases, and less time for each, are enough.
    full: whether every combination of the learner's sizes is measured.
    folder: on the disk that replay is saved to.
  """

  quick: bool = False
  full: bool = False
  folder: pathlib.Path = pathlib.Path()

  def turns(self) -> dict[str, Any]:
    """How often functions have their turn in `measure`, and for how long."""
    if self.quick:
      return {"repeats": 3, "seconds": 0.2}
    return {"repeats": 9, "seconds": 0.5}


class Spread(NamedTuple):
  """Several measurements of the same.

  Attributes:
    low: their 10th percentile.
    median: the middle one.
    high: their 90th percentile.
  """

  low: float
  median: float
  high: float


def summarize(values: Sequence[float], factor: float = 1.0) -> Spread:
  """The median and the spread of measurements, in another unit."""
  return Spread(*map(float, factor * np.percentile(values, [10, 50, 90])))


def measure(
  functions: Mapping[str, Callable[[], Any]], *, repeats: int, seconds: float
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
    once = time_once(lambda function=function: function())
    counts[name] = max(1, int(seconds / once))
  found: dict[str, list[float]] = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():

      def call(function=function, count=counts[name]) -> Any:
        for _ in range(count - 1):
          function()
        return function()

      found[name].append(time_once(call) / counts[name])
  return found


def time_once(function: Callable[[], Any]) -> float:
  """Seconds until what a function returns is ready."""
  start = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - start


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
      ratios = [turn[case][name] / turn[first][name] for turn in turns]
      found[name] = statistics.median(rates)
      found[f"{name}_ratio"] = statistics.median(ratios)
    return found

  return {case: describe(case) for case in turns[0]}


def isolate(function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls a function in a new process, which has loaded and freed nothing yet.

  What the function prints is dropped; what it raises is raised here.
  """
  spawn = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(1, spawn, _silence) as pool:
    return pool.submit(function, *arguments).result()


def _silence() -> None:
  nowhere = os.open(os.devnull, os.O_WRONLY)
  for output in (1, 2):
    os.dup2(nowhere, output)
