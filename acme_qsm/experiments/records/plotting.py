"""Pictures of learning curves, drawn from a run's CSV logs."""

import io
import os
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from acme_qsm.experiments import counts
from acme_qsm.experiments.records.disk import write_atomically
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.experiments.surroundings import homes

with homes.matplotlib_folder():
  from matplotlib.axes import Axes
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  from matplotlib.ticker import FuncFormatter

COLORS = (
  "#0072B2",
  "#D55E00",
  "#009E73",
  "#CC79A7",
  "#E69F00",
  "#56B4E9",
  "#000000",
)
"""Okabe and Ito's, which the colour-blind can tell apart."""
_LINE_STYLES = ("-", "--", ":")
"""By turns, where there are more lines than colours."""
GREY = "#6F6F6F"
# More points in a small panel would be a blot.
_MAX_POINTS = 150
_STEPS = "actor_steps"
# Panels of the learner's metrics, at most; more would be too small to read.
_MAX_PANELS = 12
# What spans more than this factor is drawn on a logarithmic scale.
_WIDE_RANGE = 8.0


def plot_learning_curve(directory: str | os.PathLike[str], title: str) -> Path:
  """Draws a run's returns and metrics into `<directory>/learning_curve.png`.

  Reads `logs/evaluator.csv`, `logs/actor.csv` and `logs/learner.csv`; what is
  missing or empty is left out. Each column of the learner's that is no count
  has a panel of its own, but for those after the twelfth.

  Args:
    directory: the run's directory.
    title: what ran.

  Returns:
    The picture's path.

  Raises:
    OSError: if the picture cannot be written.
  """
  directory = Path(directory)
  learner = _read_log(directory, "learner")
  names = [name for name in learner if not counts.is_count(name)]
  shown = names[:_MAX_PANELS]
  # Four small panels are twelve in three rows; up to three stay large.
  num_columns = 4 if len(shown) > 6 or len(shown) == 4 else 3
  num_rows = -(-len(shown) // num_columns)
  figure = Figure(
    figsize=(max(8.0, 2.6 * num_columns), 4.4 + 2.0 * num_rows),
    layout="constrained",
  )
  grid = figure.add_gridspec(
    1 + num_rows, num_columns, height_ratios=(2.3, *[1.0] * num_rows)
  )
  returns = figure.add_subplot(grid[0, :])
  _style(returns, title, "environment steps", "episode return")
  _draw_returns(
    returns, _read_log(directory, "evaluator"), _read_log(directory, "actor")
  )
  for number, name in enumerate(shown):
    panel = figure.add_subplot(
      grid[1 + number // num_columns, number % num_columns]
    )
    # The lowest of each column says it for all of them.
    lowest = number + num_columns >= len(shown)
    _style(
      panel,
      name.replace("_", " ").capitalize(),
      "environment steps" if lowest else "",
    )
    steps, values = _series(learner, _STEPS, name)
    _draw_metric(panel, steps, values, 1 + number)
  if len(names) > len(shown):
    figure.supxlabel(
      f"{len(names) - len(shown)} more metrics are in logs/learner.csv",
      fontsize=9,
      color=GREY,
    )
  path = directory / "learning_curve.png"
  save_figure(figure, path)
  return path


def _draw_returns(
  panel: Axes,
  evaluator: Mapping[str, np.ndarray],
  actor: Mapping[str, np.ndarray],
) -> None:
  """Draws training episodes as dots, and evaluations as a line in a band."""
  steps, values = _series(actor, _STEPS, "episode_return")
  if steps.size:
    dots = {"markersize": 3, "markeredgewidth": 0, "alpha": 0.45}
    panel.plot(
      steps, values, "o", color=GREY, label="training episodes", **dots
    )
  steps, values, spread = _series(
    evaluator, _STEPS, "episode_return", "episode_return_std"
  )
  if not steps.size:
    steps, values = _series(evaluator, _STEPS, "episode_return")
    spread = np.zeros_like(values)
  if steps.size:
    label = "evaluation mean"
    if np.any(spread):
      label += " ± standard deviation"
    line = {"linewidth": 2, "markersize": 3.5 if steps.size <= 60 else 0}
    panel.plot(steps, values, "o-", color=COLORS[0], label=label, **line)
    _draw_band(panel, steps, values - spread, values + spread, COLORS[0], 0.2)
    _annotate(panel, steps[-1], values[-1], values[-1], COLORS[0])
  _add_legend(panel)


def _draw_metric(
  panel: Axes, steps: np.ndarray, values: np.ndarray, number: int
) -> None:
  """Draws one of the learner's metrics."""
  if not steps.size:
    _say_no_data(panel)
    return
  steps, values = _thin(steps, values)
  color = COLORS[number % len(COLORS)]
  panel.plot(steps, values, color=color, linewidth=1.2)
  if 0 < _WIDE_RANGE * np.min(values) < np.max(values):
    panel.set_yscale("log")


def plot_learning_curves(
  directories_by_label: Mapping[str, Sequence[str | os.PathLike[str]]],
  png_path: str | os.PathLike[str],
  title: str,
) -> Path:
  """Compares evaluation returns, each curve over several runs.

  A label's curve is the mean over its runs, at the steps of all of them and
  interpolated between, with a band from the lowest to the highest and each run
  as a thin line. It ends where the shortest run ends.

  Args:
    directories_by_label: the runs' directories (seeds, mostly) by label.
    png_path: the picture to write.
    title: the picture's title.

  Returns:
    The picture's path.

  Raises:
    OSError: if the picture cannot be written.
  """
  figure = Figure(figsize=(8, 4.8), layout="constrained")
  panel = figure.add_subplot()
  _style(panel, title, "environment steps", "mean evaluation return")
  ends = []
  for number, (label, directories) in enumerate(directories_by_label.items()):
    turn, color = number // len(COLORS), COLORS[number % len(COLORS)]
    runs = [
      _series(_read_log(Path(d), "evaluator"), _STEPS, "episode_return")
      for d in directories
    ]
    runs = [(steps, values) for steps, values in runs if steps.size]
    if not runs:
      continue
    if len(runs) > 1:
      label = f"{label} ({len(runs)} runs)"
      for steps, values in runs:
        panel.plot(steps, values, color=color, linewidth=0.8, alpha=0.45)
    first = max(steps[0] for steps, _ in runs)
    last = min(steps[-1] for steps, _ in runs)
    steps = np.unique(np.concatenate([steps for steps, _ in runs]))
    steps = steps[(steps >= first) & (steps <= last)]
    if not steps.size:
      # Runs that do not overlap have no mean: keep their thin lines' label.
      panel.plot([], [], color=color, label=label)
      continue
    values = np.stack([np.interp(steps, *run) for run in runs])
    mean = values.mean(axis=0)
    _draw_band(
      panel, steps, values.min(axis=0), values.max(axis=0), color, 0.15
    )
    style = _LINE_STYLES[turn % len(_LINE_STYLES)]
    panel.plot(steps, mean, style, color=color, linewidth=2.2, label=label)
    ends.append((mean[-1], steps[-1], color))
  ends.sort()
  heights = _move_apart([value for value, _, _ in ends], *panel.get_ylim())
  for (value, step, color), height in zip(ends, heights, strict=True):
    _annotate(panel, step, height, value, color)
  _add_legend(panel)
  path = Path(png_path)
  save_figure(figure, path)
  return path


def _move_apart(
  values: Sequence[float], bottom: float, top: float
) -> list[float]:
  """The heights of labels beside values, lowest first, that do not overlap.

  They are moved upwards, and down again from the panel's top.
  """
  gap = 0.05 * (top - bottom)
  heights: list[float] = []
  for value in values:
    heights.append(max(value, heights[-1] + gap) if heights else value)
  above = top + gap
  for number in reversed(range(len(heights))):
    above = heights[number] = min(heights[number], above - gap)
  return heights


def _read_log(directory: Path, label: str) -> dict[str, np.ndarray]:
  return read_csv(directory / "logs" / f"{label}.csv")


def _series(
  table: Mapping[str, np.ndarray], *keys: str
) -> tuple[np.ndarray, ...]:
  """Returns columns' rows in which all are finite; empty if one is missing."""
  if not all(key in table for key in keys):
    return tuple(np.zeros(0) for _ in keys)
  columns = np.stack([table[key] for key in keys])
  return tuple(columns[:, np.all(np.isfinite(columns), axis=0)])


def _thin(
  steps: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Averages over stretches, to at most _MAX_POINTS points."""
  if steps.size <= _MAX_POINTS:
    return steps, values
  starts = np.linspace(0, steps.size, _MAX_POINTS, endpoint=False).astype(int)
  sizes = np.diff(np.append(starts, steps.size))
  return (
    np.add.reduceat(steps, starts) / sizes,
    np.add.reduceat(values, starts) / sizes,
  )


def _style(panel: Axes, title: str, xlabel: str, ylabel: str = "") -> None:
  panel.set_title(title, loc="left", fontsize=11)
  panel.set(xlabel=xlabel, ylabel=ylabel)
  panel.spines[["top", "right"]].set_visible(False)
  panel.grid(axis="y", color="#DDDDDD", linewidth=0.7)
  panel.set_axisbelow(True)
  panel.xaxis.set_major_formatter(FuncFormatter(_format_steps))
  panel.locator_params(axis="x", nbins=6)


def _format_steps(steps: float, unused_position: object = None) -> str:
  for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if abs(steps) >= size:
      return f"{steps / size:g}{unit}"
  return f"{steps:g}"


def _annotate(
  panel: Axes, step: float, height: float, value: float, color: str
) -> None:
  """Writes a curve's last value to the right of its end, at a height."""
  panel.annotate(
    f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}",
    (step, height),
    xytext=(6, 0),
    textcoords="offset points",
    va="center",
    color=color,
    fontweight="bold",
    annotation_clip=False,
  )


def _draw_band(
  panel: Axes,
  steps: np.ndarray,
  low: np.ndarray,
  high: np.ndarray,
  color: str,
  alpha: float,
) -> None:
  panel.fill_between(steps, low, high, color=color, alpha=alpha, linewidth=0)


def _add_legend(panel: Axes) -> None:
  if panel.get_legend_handles_labels()[0]:
    panel.legend(frameon=False, loc="best")
  else:
    _say_no_data(panel)


def _say_no_data(panel: Axes) -> None:
  panel.text(
    0.5, 0.5, "no data yet", transform=panel.transAxes, ha="center", color=GREY
  )
  panel.set_xticks([])
  panel.set_yticks([])


def save_figure(figure: Figure, path: Path) -> None:
  """Writes a figure as a PNG, atomically, without pyplot.

  Args:
    figure: what was drawn.
    path: the picture, in a folder that exists.

  Raises:
    OSError: if it cannot be written.
  """
  # A canvas of its own: pyplot would keep the figure and choose a backend.
  buffer = io.BytesIO()
  FigureCanvasAgg(figure)
  figure.savefig(buffer, format="png", dpi=150)
  write_atomically(path, buffer.getvalue())
