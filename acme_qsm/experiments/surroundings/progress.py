"""One live display of a run's progress, or plain lines where none can be."""

import collections
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich import progress_bar
from rich.columns import Columns
from rich.console import Console
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from acme_qsm.experiments.surroundings import output

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 30.0
# The rate is that of this last stretch of time.
_RATE_SECONDS = 30.0


class Progress:
  """Shows how far a run is: a context manager.

  On a terminal it is one display that stays in place; elsewhere one line per
  half minute.
  """

  def __init__(
    self,
    total_steps: int,
    title: str,
    initial_steps: int = 0,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises the display; it appears when the context is entered.

    Args:
      total_steps: environment steps of the whole run.
      title: what is running.
      initial_steps: environment steps that a resumed run had done before.
      console: where to print; standard output if None. What cannot be printed
        there is dropped.
      clock: tells the time in seconds.
    """
    self._total_steps = total_steps
    self._title = title
    self._steps = initial_steps
    self._console = console or Console(
      file=output.forgiving(sys.stdout)  # pyright: ignore[reportArgumentType]
    )
    self._clock = clock
    self._fields: dict[str, Any] = {}
    self._samples: collections.deque[tuple[float, int]] = collections.deque()
    self._live: Live | None = None
    self._start = self._last_refresh = self._last_line = 0.0

  def __enter__(self) -> "Progress":
    self._start = self._last_refresh = self._last_line = self._clock()
    self._samples.append((self._start, self._steps))
    if self._console.is_terminal:
      # Refreshed by `update` alone: no thread of its own.
      self._live = Live(
        self._render(), console=self._console, auto_refresh=False
      )
      self._live.start(refresh=True)
    return self

  def __exit__(self, *unused_exception) -> None:
    if self._live is not None:
      self._sample(self._clock())
      self._live.update(self._render(), refresh=True)
      self._live.stop()
      self._live = None

  def update(self, actor_steps: int, **fields: Any) -> None:
    """Takes note of the run's state; cheap enough for every environment step.

    Args:
      actor_steps: environment steps done, those before a resume included.
      **fields: numbers or texts to show; each stays until it is given anew.
    """
    self._steps = actor_steps
    self._fields.update(fields)
    now = self._clock()
    if now - self._last_refresh < _REFRESH_SECONDS:
      return
    self._last_refresh = now
    self._sample(now)
    if self._live is not None:
      self._live.update(self._render(), refresh=True)
    elif now - self._last_line >= _LINE_SECONDS:
      self._last_line = now
      self._print(self._line())

  def note(self, message: str) -> None:
    """Prints a line above the display."""
    self._print(message)

  def _print(self, text: str) -> None:
    # As it is: no markup, colours or line breaks.
    self._console.print(text, markup=False, highlight=False, soft_wrap=True)

  def _sample(self, now: float) -> None:
    """Adds to the samples and drops those that the rate has no use for."""
    self._samples.append((now, self._steps))
    while len(self._samples) > 2 and self._samples[1][0] <= now - _RATE_SECONDS:
      self._samples.popleft()

  def _rate(self) -> float:
    """Recent environment steps per second, of this process."""
    (first_time, first_steps), (last_time, last_steps) = (
      self._samples[0],
      self._samples[-1],
    )
    if last_time <= first_time:
      return 0.0
    return (last_steps - first_steps) / (last_time - first_time)

  def _status(self) -> list[str]:
    """The parts of the line about steps and time."""
    rate = self._rate()
    left = "unknown"
    if rate > 0:
      left = _format_time(max(self._total_steps - self._steps, 0) / rate)
    return [
      f"{self._steps:,}/{self._total_steps:,} steps",
      f"{rate:,.0f} steps/s" if rate >= 10 else f"{rate:.1f} steps/s",
      f"{_format_time(self._samples[-1][0] - self._start)} elapsed",
      f"{left} left",
    ]

  def _line(self) -> str:
    fields = [
      f"{name}={_format_value(value)}" for name, value in self._fields.items()
    ]
    return "  ".join(
      [f"{self._title}: {self._status()[0]}", *self._status()[1:], *fields]
    )

  def _render(self) -> Group:
    bar = Table.grid(padding=(0, 2), expand=True)
    bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    bar.add_column(no_wrap=True, justify="right")
    share = (
      min(self._steps / self._total_steps, 1.0) if self._total_steps else 1.0
    )
    bar.add_row(
      Text(self._title, style="bold"),
      progress_bar.ProgressBar(total=1.0, completed=share),
      f"{share:.0%}",
    )
    parts = [bar, Text("  ·  ".join(self._status()))]
    if self._fields:
      parts.append(
        Columns(
          [
            Text.assemble(
              (f"{name.replace('_', ' ')} ", "dim"), _format_value(value)
            )
            for name, value in self._fields.items()
          ],
          padding=(0, 3),
        )
      )
    return Group(*parts)


def _format_time(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02d}:{seconds:02d}"


def _format_value(value: Any) -> str:
  if value is None:
    return "-"
  if isinstance(value, str):
    return value
  number = np.asarray(value).item()
  if isinstance(number, float):
    return f"{number:,.1f}" if 1000 <= abs(number) < 1e7 else f"{number:.4g}"
  return f"{number:,}"
