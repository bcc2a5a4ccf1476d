"""One live display of a run's progress, or plain lines where none can be."""

import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich import progress
from rich.columns import Columns
from rich.console import Console
from rich.console import RenderableType
from rich.text import Text

from acme_qsm.experiments.surroundings import output

_REFRESH_SECONDS = 0.2
_LINE_SECONDS = 30.0


class Progress:
  """Shows how far a run is: a context manager.

  On a terminal it is one display that stays in place; elsewhere one line per
  half minute. The rate is that of the last half minute.
  """

  def __init__(
    self,
    total_steps: int,
    title: str,
    initial_steps: int | None = None,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises the display; it appears when the context is entered.

    Args:
      total_steps: environment steps of the whole run.
      title: what is running.
      initial_steps: environment steps that a resumed run had done before, which
        the rate leaves out; None if the first `update` says how many.
      console: where to print; standard output if None. What cannot be printed
        there is dropped.
      clock: tells the time in seconds.
    """
    self._console = console or Console(file=output.forgiving(sys.stdout))
    self._steps = initial_steps
    self._clock = clock
    self._fields: dict[str, Any] = {}
    # Refreshed by `update` alone: no thread of its own.
    self._display = _Display(
      progress.TextColumn("{task.description}", style="bold", markup=False),
      progress.BarColumn(bar_width=None),
      progress.TaskProgressColumn(),
      console=self._console,
      auto_refresh=False,
      get_time=clock,
      disable=not self._console.is_interactive,
      expand=True,
    )
    self._display.below = self._below
    self._task_id = self._display.add_task(
      title, start=False, total=total_steps, completed=initial_steps or 0
    )

  def __enter__(self) -> "Progress":
    self._last_refresh = self._last_line = self._clock()
    self._display.start_task(self._task_id)
    self._advance()
    self._display.start()
    return self

  def __exit__(self, *unused_exception) -> None:
    self._advance()
    self._display.stop()

  def update(self, actor_steps: int, **fields: Any) -> None:
    """Takes note of the run's state; cheap enough for every environment step.

    Args:
      actor_steps: environment steps done, those before a resume included.
      **fields: numbers or texts to show; each stays until it is given anew.
    """
    if self._steps is None:
      self._display.reset(self._task_id, completed=actor_steps)
    self._steps = actor_steps
    self._fields.update(fields)
    now = self._clock()
    if now - self._last_refresh < _REFRESH_SECONDS:
      return
    self._last_refresh = now
    self._advance()
    self._display.refresh()
    if self._display.disable and now - self._last_line >= _LINE_SECONDS:
      self._last_line = now
      self.note(self._line())

  def note(self, message: str) -> None:
    """Prints a line above the display."""
    # As it is: no markup, colours or line breaks.
    self._console.print(message, markup=False, highlight=False, soft_wrap=True)

  @property
  def _task(self) -> progress.Task:
    return self._display.tasks[0]

  def _advance(self) -> None:
    """Notes when how many steps are done, of which the rate is made."""
    done = self._task.completed
    self._display.advance(self._task_id, (self._steps or done) - done)

  def _status(self) -> list[str]:
    """The parts of the line about steps and time."""
    rate, left = self._task.speed or 0.0, self._task.time_remaining
    return [
      f"{self._steps or 0:,}/{self._task.total:,} steps",
      f"{rate:,.0f} steps/s" if rate >= 10 else f"{rate:.1f} steps/s",
      f"{_format_time(self._task.elapsed or 0.0)} elapsed",
      f"{'unknown' if left is None else _format_time(left)} left",
    ]

  def _line(self) -> str:
    first, *others = self._status()
    fields = [
      f"{name}={_format_value(value)}" for name, value in self._fields.items()
    ]
    return "  ".join([f"{self._task.description}: {first}", *others, *fields])

  def _below(self) -> Iterator[RenderableType]:
    """What the display has below its bar."""
    yield Text("  ·  ".join(self._status()))
    if self._fields:
      yield Columns(
        [
          Text.assemble(
            (f"{name.replace('_', ' ')} ", "dim"), _format_value(value)
          )
          for name, value in self._fields.items()
        ],
        padding=(0, 3),
      )


class _Display(progress.Progress):
  """A bar, and what is `below` it."""

  below: Callable[[], Iterator[RenderableType]]

  def get_renderables(self) -> Iterator[RenderableType]:
    yield from super().get_renderables()
    if self.tasks:  # Else it is being made.
      yield from self.below()


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
