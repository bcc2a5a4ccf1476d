"""Tables and pictures of what a benchmark has found, and on which machine."""

import importlib
import os
import pathlib
import platform
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias

import jax
import numpy as np

Row: TypeAlias = tuple[str, Mapping[str, Any]]
"""(a table's name, one of its rows: values by column, the first its name)."""

_LABELS = {
  "num_denoising_steps": "denoising steps T",
  "batch_size": "batch size",
  "width": "width of hidden layers",
  "num_fused": "gradient steps per call",
  "num_seeds": "seeds at once",
}


def describe_machine() -> dict[str, Any]:
  """Describes the machine, as JSON can hold it."""
  cpu = platform.processor()
  information = pathlib.Path("/proc/cpuinfo")
  if information.exists():
    for line in information.read_text().splitlines():
      name, _, value = line.partition(":")
      if name.strip() == "model name":
        cpu = value.strip()
  return {
    "cpu": cpu,
    "cores": len(os.sched_getaffinity(0)),
    "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "device": jax.local_devices()[0].device_kind,
    "platform": platform.platform(),
    "python": platform.python_version(),
    "jax": jax.__version__,
  }


def leave_out(what: str, error: ModuleNotFoundError) -> None:
  """Says that something is not measured for want of a package."""
  print(f"{what} is left out: {error}", flush=True)


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
  """Those cases, by axis, that differ in it alone from the first case."""
  found = {}
  for name in _LABELS:
    along = [
      case
      for case in cases
      if all(case[key] == cases[0][key] for key in _LABELS if key != name)
    ]
    if len(along) > 1:
      found[name] = sorted(along, key=lambda case: case[name])
  return found


def slope(values: Sequence[float], seconds: Sequence[float]) -> float:
  """The power of a value that a time grows with, by least squares."""
  return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def plot(
  cases: Sequence[Mapping[str, Any]],
  programs: Sequence[Mapping[str, Any]],
  path: pathlib.Path,
) -> bool:
  """Draws time against whatever was varied.

  Args:
    cases: rows of the part `learner`.
    programs: rows of the part `program`.
    path: where the picture goes.

  Returns:
    Whether there was anything to draw.

  Raises:
    ModuleNotFoundError: without matplotlib, which tables do without.
  """
  panels = []
  for name, along in find_axes(cases).items():
    times = [[case[f"ms_{end}"] for end in ("low", "high")] for case in along]
    median = [case["ms_per_call"] for case in along]
    values = [case[name] for case in along]
    panels.append((_LABELS[name], values, median, times, "ms per call"))
  if len(programs) > 1:
    ms = [1e3 / row["environment_steps_per_second"] for row in programs]
    actors = [row["actors"] for row in programs]
    times = [[each, each] for each in ms]
    panels.append(("actors", actors, ms, times, "ms per environment step"))
  if not panels:
    return False
  homes = importlib.import_module("acme_qsm.experiments.surroundings.homes")
  with homes.matplotlib_folder():
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
  rows, columns = -(-len(panels) // 3), min(len(panels), 3)
  figure, axes = plt.subplots(
    rows, columns, figsize=(3.5 * columns, 3.0 * rows), squeeze=False
  )
  for axis in axes.flat[len(panels) :]:
    axis.set_axis_off()
  for axis, (label, values, median, times, unit) in zip(
    axes.flat, panels, strict=False
  ):
    errors = np.abs(np.transpose(times) - np.asarray(median))
    axis.errorbar(values, median, yerr=errors, marker="o", capsize=3)
    axis.set(xscale="log", yscale="log", xlabel=label, ylabel=unit)
    axis.set_xticks(values, labels=[f"{value:,}" for value in values])
    axis.set_yticks(median, labels=[f"{value:,.3g}" for value in median])
    axis.minorticks_off()
    axis.set_title(f"slope {slope(values, median):.2f}", fontsize=10)
    axis.grid(alpha=0.3)
  figure.tight_layout()
  figure.savefig(path, dpi=150)
  plt.close(figure)
  return True
