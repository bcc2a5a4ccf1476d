"""Keeps the processes of a run alive: starts one again when it dies or hangs.

For engines that do not restart processes themselves. One thread watches over
all of them, so that the supervising process can be forked at any time.
"""

import ctypes
import dataclasses
import enum
import os
import signal
import time
from collections.abc import Callable
from collections.abc import Sequence
from multiprocessing import connection
from multiprocessing import process as mp_process


class ExitCode(enum.IntEnum):
  """Exit codes of processes that end themselves.

  Attributes:
    DONE: there is no more to do.
    GIVE_UP: starting it again would not help.
    HUNG: a call of its environment did not end.
    CUT_OFF: it did not hear of the coordinator any more.
    REPLAY_MOVED: it has lost replay, or replay is elsewhere.
    EVICTED: it was told to end by a signal, while the run goes on.
    DISMISSED: the coordinator has given it up, or another is in its place.
  """

  DONE = 0
  GIVE_UP = 70
  HUNG = 71
  CUT_OFF = 72
  REPLAY_MOVED = 73
  EVICTED = 74
  DISMISSED = 75


_CAUSES = {
  ExitCode.GIVE_UP: "its environment always failed",
  ExitCode.HUNG: "its environment hung",
  ExitCode.CUT_OFF: "it was cut off from the coordinator",
  ExitCode.REPLAY_MOVED: "it lost replay",
  ExitCode.EVICTED: "it was told to end",
  ExitCode.DISMISSED: "the run does without it",
}
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.25
_KILL_SECONDS = 20.0
_PAUSE_SECONDS = 1.0


class GiveUpError(Exception):
  """A process cannot do its part; starting it again would not help."""


@dataclasses.dataclass(frozen=True)
class Death:
  """How a process ended.

  Attributes:
    code: its exit code, negative for a signal's number; None if it is to be
      killed because it gives no sign of life, or was never started.
    start_error: why it could not be started; None if it was.
  """

  code: int | None
  start_error: OSError | None = None

  @property
  def final(self) -> bool:
    """Whether starting it again would not help."""
    return self.code in (ExitCode.GIVE_UP, ExitCode.DISMISSED)

  @property
  def failed(self) -> bool:
    """Whether it failed, rather than that somebody told it to end."""
    return self.code not in (ExitCode.EVICTED, -signal.SIGTERM)

  def __str__(self) -> str:
    if self.start_error is not None:
      return f"it could not be started: {self.start_error}"
    if self.code is None:
      return "it gave no sign of life"
    if self.code in _CAUSES:
      return _CAUSES[ExitCode(self.code)]
    if self.code < 0:
      try:
        return f"killed by {signal.Signals(-self.code).name}"
      except ValueError:
        return f"killed by signal {-self.code}"
    return f"exit code {self.code}"


def supervise(
  start: Callable[[str], mp_process.BaseProcess],
  names: Sequence[str],
  on_death: Callable[[str, Death], bool],
  is_over: Callable[[], bool],
  is_hung: Callable[[str, float], bool],
) -> None:
  """Runs processes until each has succeeded or is given up.

  Args:
    start: starts the process of a name, or raises OSError.
    names: the processes' names.
    on_death: called with the name whenever a process has died; returns whether
      it is given up, and not started again.
    is_over: asked now and then. Once it says so, no process is started again,
      and one that does not end by itself is killed.
    is_hung: asked now and then whether the process of a name is to be killed,
      which was started so many seconds ago.
  """
  due = dict.fromkeys(names, time.monotonic())
  running: dict[str, tuple[mp_process.BaseProcess, float]] = {}
  over_since: float | None = None

  def die(name: str, death: Death) -> None:
    if over_since is None and not on_death(name, death):
      due[name] = time.monotonic() + _PAUSE_SECONDS

  try:
    while due or running:
      if over_since is None and is_over():
        over_since = time.monotonic()
        due.clear()
      if over_since and time.monotonic() - over_since > _KILL_SECONDS:
        return
      for name in [n for n, at in due.items() if at <= time.monotonic()]:
        del due[name]
        try:
          running[name] = start(name), time.monotonic()
        except OSError as error:  # The machine may have room for it soon.
          die(name, Death(None, error))
      for name, (process, started_at) in list(running.items()):
        code = process.exitcode
        if code is None and not is_hung(name, time.monotonic() - started_at):
          continue
        del running[name]
        _end(process)
        if code != ExitCode.DONE:
          die(name, Death(code))
      sentinels = [process.sentinel for process, _ in running.values()]
      connection.wait(sentinels, _POLL_SECONDS)
  finally:
    for process, _ in running.values():
      _end(process)


def _end(process: mp_process.BaseProcess) -> None:
  """Kills a process if it is alive, and lets go of what is left of it."""
  process.kill()
  process.join()
  process.close()


def die_with_parent() -> None:
  """Has the kernel kill this process when the one that started it dies."""
  parent = os.getppid()
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # It has died meanwhile.
    os.kill(os.getpid(), signal.SIGKILL)
