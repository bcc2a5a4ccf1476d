"""Keeps the processes of a run alive: starts one again when it dies or hangs.

For engines that do not restart processes themselves. One thread watches over
all of them, so that the supervising process can be forked at any time.
"""

import contextlib
import ctypes
import dataclasses
import enum
import multiprocessing
import os
import signal
import threading
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


class GiveUpError(Exception):
  """A process cannot do its part; starting it again would not help."""


@dataclasses.dataclass(frozen=True)
class Death:
  """How a process ended.

  Attributes:
    code: its exit code, negative for a signal's number; None if it gave no sign
      of life, and is to be killed, or never started.
    silent_seconds: how long it had given none.
    start_error: why it could not be started; None if it was.
  """

  code: int | None
  silent_seconds: float = 0.0
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
      return f"it gave no sign of life for {self.silent_seconds:g} seconds"
    if self.code in _CAUSES:
      return _CAUSES[ExitCode(self.code)]
    if self.code < 0:
      try:
        return f"killed by {signal.Signals(-self.code).name}"
      except ValueError:
        return f"killed by signal {-self.code}"
    return f"exit code {self.code}"


Start = Callable[[str, connection.Connection], mp_process.BaseProcess]
"""Starts the process of a name, which is to beat on the connection: see
`keep_beating`."""


def supervise(
  start: Start,
  names: Sequence[str],
  on_death: Callable[[str, Death], bool],
  is_over: Callable[[], bool],
  *,
  hang_seconds: float = 60.0,
  start_seconds: float = 300.0,
  pause_seconds: float = 1.0,
) -> None:
  """Runs processes until each has succeeded or is given up.

  Args:
    start: starts one of them.
    names: the processes' names.
    on_death: called with the name whenever a process has died; returns whether
      it is given up, and not started again.
    is_over: asked now and then. Once it says so, no process is started again,
      and one that does not end by itself is killed.
    hang_seconds: seconds without a beat after which a process is killed.
    start_seconds: the same for the first beat.
    pause_seconds: seconds from the end of a process to its next start.
  """
  due = dict.fromkeys(names, time.monotonic())
  running: dict[str, _Running] = {}
  over_since: float | None = None
  try:
    while due or running:
      if over_since is None and is_over():
        over_since = time.monotonic()
        due.clear()
      if over_since and time.monotonic() - over_since > _KILL_SECONDS:
        return
      for name in [n for n, at in due.items() if at <= time.monotonic()]:
        del due[name]
        running[name] = _Running(start, name, start_seconds)
      for name, process in list(running.items()):
        death = process.find_death(hang_seconds)
        if death is None:
          continue
        running.pop(name).end()
        wanted = over_since is None and death.code != ExitCode.DONE
        if wanted and not on_death(name, death):
          due[name] = time.monotonic() + pause_seconds
      waited_for = [one for each in running.values() for one in each.waited_for]
      connection.wait(waited_for, _POLL_SECONDS)
  finally:
    for process in running.values():
      process.end()


class _Running:
  """A process, from its start to its end.

  Attributes:
    waited_for: what `connection.wait` returns for when there is news of it.
  """

  def __init__(self, start: Start, name: str, start_seconds: float):
    """Starts the process; where it cannot be started, that is its death."""
    self.waited_for: list[connection.Connection | int] = []
    self._process: mp_process.BaseProcess | None = None
    self._start_error: OSError | None = None
    self._last_beat = time.monotonic()
    self._patience = start_seconds
    try:
      self._beats, end = multiprocessing.Pipe(duplex=False)
      self.waited_for.append(self._beats)
      with end:
        # A process whose supervisor is busy does not wait for it.
        os.set_blocking(end.fileno(), False)
        self._process = start(name, end)
      self.waited_for.append(self._process.sentinel)
    except OSError as error:  # The machine may have room for it soon.
      self._start_error = error

  def find_death(self, hang_seconds: float) -> Death | None:
    """What it has died of; None if it is alive and well."""
    if self._process is None:
      return Death(None, start_error=self._start_error)
    code = self._process.exitcode
    if code is not None:
      return Death(code)
    try:
      while self._beats in self.waited_for and self._beats.poll():
        self._beats.recv_bytes()
        self._last_beat = time.monotonic()
        self._patience = hang_seconds
    except EOFError:  # It is about to end, or has closed its end.
      self.waited_for.remove(self._beats)
    if time.monotonic() - self._last_beat > self._patience:
      return Death(None, self._patience)
    return None

  def end(self) -> None:
    """Kills it if it is alive, and lets go of what is left of it."""
    if self._process is not None:
      self._process.kill()
      self._process.join()
      self._process.close()
    for one in self.waited_for:
      if isinstance(one, connection.Connection):
        one.close()


def die_with_parent() -> None:
  """Has the kernel kill this process when the one that started it dies."""
  parent = os.getppid()
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # It has died meanwhile.
    os.kill(os.getpid(), signal.SIGKILL)


def keep_beating(beats: connection.Connection) -> None:
  """Tells the supervisor once a second from now on that this process lives."""

  def run() -> None:
    while True:
      # One that is busy for long need not be told again.
      with contextlib.suppress(BlockingIOError):
        beats.send_bytes(b".")
      time.sleep(1.0)

  threading.Thread(target=run, name="heartbeat", daemon=True).start()
