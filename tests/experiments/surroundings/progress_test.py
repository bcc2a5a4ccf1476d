"""Tests of the progress display, with a clock that the tests set."""

import io
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from acme_qsm.experiments.surroundings import progress


class Clock:
  """Tells the time that it was set to."""

  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


def _console(terminal):
  return Console(
    file=io.StringIO(), force_terminal=terminal, width=100, color_system=None
  )


def _file(console) -> Any:
  return console.file


def _take(console):
  """Returns what was printed since the last time, without control codes."""
  text = _file(console).getvalue()
  _file(console).truncate(0)
  _file(console).seek(0)
  return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _plain_lines(clock, total, rates, initial=0, told=True, **fields):
  """The lines of a display whose run makes steps at each rate for a minute."""
  console = _console(terminal=False)
  with progress.Progress(
    total,
    "task",
    initial_steps=initial if told else None,
    console=console,
    clock=clock,
  ) as display:
    step = initial
    if not told:
      display.update(step)
    for rate in rates:
      for _ in range(120):
        clock.now += 0.5
        step += rate // 2
        display.update(step, **fields)
  return _take(console).splitlines()


def test_plain_lines_every_half_minute(clock):
  fields = {"episode_return": jnp.float32(12.5), "learner_steps": 2_000}
  # 8 steps/s: 760 steps are left at 30 s and 520 at 60 s.
  assert _plain_lines(clock, 1000, [8], **fields) == [
    "task: 240/1,000 steps  8.0 steps/s  0:00:30 elapsed  0:01:35 left  "
    "episode_return=12.5  learner_steps=2,000",
    "task: 480/1,000 steps  8.0 steps/s  0:01:00 elapsed  0:01:05 left  "
    "episode_return=12.5  learner_steps=2,000",
  ]


@pytest.mark.parametrize("told", [True, False])
def test_the_rate_of_a_resumed_run_counts_its_own_steps(clock, told):
  # 60 steps in 30 s; 40 are left, at 2 per second.
  first, last = _plain_lines(clock, 5100, [2], initial=5000, told=told)
  assert first == (
    "task: 5,060/5,100 steps  2.0 steps/s  0:00:30 elapsed  0:00:20 left"
  )
  # And more of them than were planned.
  assert last == (
    "task: 5,120/5,100 steps  2.0 steps/s  0:01:00 elapsed  0:00:00 left"
  )


def test_the_rate_is_the_recent_one(clock):
  lines = _plain_lines(clock, 100_000, [1000, 20])
  # 1000 steps/s for a minute and then 20: the first minute is forgotten.
  assert lines[1].startswith("task: 60,000/100,000 steps  1,000 steps/s")
  assert lines[3] == (
    "task: 61,200/100,000 steps  20 steps/s  0:02:00 elapsed  0:32:20 left"
  )


def test_plain_notes(clock):
  console = _console(terminal=False)
  message = "[red] checkpoint at step 1234567: " + "long " * 40 + "/tmp/a"
  with progress.Progress(10, "task", console=console, clock=clock) as display:
    display.note(message)
    display.update(1)
  assert _take(console) == message + "\n"


def test_the_live_display(clock):
  console = _console(terminal=True)
  with progress.Progress(
    2000, "cartpole:swingup", initial_steps=100, console=console, clock=clock
  ) as display:
    first = _take(console)
    assert "100/2,000 steps" in first
    assert "unknown left" in first
    clock.now += 10
    display.update(
      600, critic_loss=np.float32(0.012346), episode_return=812.3, note="ok"
    )
    frame = _take(console)
    assert "cartpole:swingup" in frame
    assert "30%" in frame
    # 500 steps in 10 s, 1400 left.
    assert "50 steps/s" in frame
    assert "0:00:10 elapsed" in frame
    assert "0:00:28 left" in frame
    for text in ("critic loss 0.01235", "episode return 812.3", "note ok"):
      assert text in re.sub(" +", " ", frame)
    # Fields stay, and the last state is there at the end.
    clock.now += 0.1
    display.update(650, episode_return=900)
    assert _take(console) == ""
  last = _take(console)
  assert "650/2,000 steps" in last
  assert "episode return 900" in re.sub(" +", " ", last)
  assert "critic loss" in last


def test_the_live_display_is_refreshed_five_times_a_second(clock):
  console = _console(terminal=True)
  with progress.Progress(9999, "task", console=console, clock=clock) as display:
    _take(console)
    for step in range(1, 1001):
      clock.now += 0.002
      display.update(step)
    frames = _take(console).count("/9,999 steps")
  # Two seconds.
  assert 9 <= frames <= 10


def test_notes_stay_above_the_live_display(clock):
  console = _console(terminal=True)
  with progress.Progress(10, "task", console=console, clock=clock) as display:
    _take(console)
    display.note("evaluated: [812]")
    text = _take(console)
  assert text.index("evaluated: [812]") < text.index("0/10 steps")


def test_the_cursor_comes_back_after_an_error(clock):
  console = _console(terminal=True)
  display = progress.Progress(10, "task", console=console, clock=clock)
  with pytest.raises(RuntimeError, match="stop"), display:
    raise RuntimeError("stop")
  text = _file(console).getvalue()
  assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
