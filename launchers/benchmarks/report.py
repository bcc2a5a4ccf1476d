"""Tables and pictures of what a benchmark has found."""

import dataclasses
import importlib
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from launchers.benchmarks import learner

_LABELS = {
  "num_denoising_steps": "denoising steps T",
  "batch_size": "batch size",
  "width": "width of hidden layers",
  "num_fused": "gradient steps per call",
  "num_seeds": "seeds at once",
}


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Aligns rows of the same keys, which become the head."""
  cells = [list(rows[0])] + [
    [_format(value) for value in row.values()] for row in rows
  ]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  return "\n".join(
    "  ".join(
      cell.rjust(width) for cell, width in zip(line, widths, strict=True)
    )
    for line in cells
  )


def _format(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:,.3g}" if abs(value) < 1_000 else f"{value:,.0f}"
  return str(value)


def find_axes(
  cases: Sequence[Mapping[str, Any]],
) -> dict[str, list[Mapping[str, Any]]]:
  """Those cases, by axis, that differ in it alone from the standard case."""
  standard = dataclasses.asdict(learner.Case())
  found = {}
  for name in learner.AXES:
    others = {key: value for key, value in standard.items() if key != name}
    along = [
      case
      for case in cases
      if all(case[key] == value for key, value in others.items())
    ]
    if len(along) > 1:
      found[name] = sorted(along, key=lambda case: case[name])
  return found


def slope(values: Sequence[float], seconds: Sequence[float]) -> float:
  """The power of a value that a time grows with, by least squares."""
  return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def plot(
  cases: Sequence[Mapping[str, Any]],
  program: Mapping[str, Mapping[str, Any]],
  path: pathlib.Path,
) -> bool:
  """Draws time against whatever was varied.

  Args:
    cases: what `learner.measure` yielded.
    program: what `program.measure` returned, by the number of actors.
    path: where the picture goes.

  Returns:
    Whether there was anything to draw.

  Raises:
    ModuleNotFoundError: without matplotlib, which tables do without.
  """
  panels = [
    (
      _LABELS[name],
      [case[name] for case in along],
      [case["milliseconds_per_call"] for case in along],
      "ms per call",
    )
    for name, along in find_axes(cases).items()
  ]
  if len(program) > 1:
    per_step = [
      1e3 / each["environment_steps_per_second"] for each in program.values()
    ]
    panels.append(
      (
        "actors",
        [int(number) for number in program],
        [{"median": ms, "low": ms, "high": ms} for ms in per_step],
        "ms per environment step",
      )
    )
  if not panels:
    return False
  homes = importlib.import_module("acme_qsm.experiments.surroundings.homes")
  with homes.matplotlib_folder():
    importlib.import_module("matplotlib.pyplot")
  matplotlib = importlib.import_module("matplotlib")
  matplotlib.use("Agg")
  plt = importlib.import_module("matplotlib.pyplot")
  rows, columns = -(-len(panels) // 3), min(len(panels), 3)
  figure, axes = plt.subplots(
    rows, columns, figsize=(3.5 * columns, 3.0 * rows), squeeze=False
  )
  for axis in axes.flat[len(panels) :]:
    axis.set_axis_off()
  for axis, (label, values, times, unit) in zip(
    axes.flat, panels, strict=False
  ):
    median = np.array([time["median"] for time in times])
    errors = np.array(
      [
        [time["median"] - time["low"] for time in times],
        [time["high"] - time["median"] for time in times],
      ]
    )
    axis.errorbar(values, median, yerr=errors, marker="o", capsize=3)
    axis.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
    axis.set_xticks(values, labels=[f"{value:,}" for value in values])
    axis.set_yticks(median, labels=[f"{value:,.3g}" for value in median])
    axis.minorticks_off()
    axis.set_title(f"slope {slope(values, list(median)):.2f}", fontsize=10)
    axis.grid(alpha=0.3)
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  plt.close(figure)
  return True
