"""Keeps a process of a run alive: starts it again when it dies or hangs.

For engines that do not restart processes themselves. Imports nothing but the
standard library, so that who supervises costs little beside what it supervises.
"""

import contextlib
import ctypes
import dataclasses
import enum
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import BinaryIO
from typing import Protocol


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

HEARTBEAT_VARIABLE = "ACME_QSM_HEARTBEAT"
"""Environment variable: the descriptor on which a process is to beat."""
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.25
_KILL_SECONDS = 20.0


class GiveUpError(Exception):
  """A process cannot do its part; starting it again would not help."""


@dataclasses.dataclass(frozen=True)
class Death:
  """How a process ended that was to go on.

  Attributes:
    code: its exit code, negative for a signal's number; None if it was killed
      because it gave no sign of life, or never started.
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
  def evicted(self) -> bool:
    """Whether somebody told it to end, which is no failure of its own."""
    return self.code in (ExitCode.EVICTED, -signal.SIGTERM)

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


class Process(Protocol):
  """A process that was started, in the terms of `subprocess.Popen`."""

  @property
  def returncode(self) -> int | None:
    """Its exit code, negative for a signal's number; None until it is known."""
    ...

  def poll(self) -> int | None:
    """Looks whether it has ended; returns `returncode`."""
    ...

  def kill(self) -> None:
    """Kills it."""

  def wait(self) -> int:
    """Waits for its end; returns `returncode`."""
    ...


Starter = Callable[[BinaryIO, int, Mapping[str, str]], Process]
"""Starts a process: its output, a descriptor to leave open, more environment
variables."""


def starter(command: Sequence[str]) -> Starter:
  """What starts a command."""

  def start(
    log: BinaryIO, descriptor: int, environment: Mapping[str, str]
  ) -> Process:
    return subprocess.Popen(
      command,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      pass_fds=[descriptor],
      env={**os.environ, **environment},
    )

  return start


def supervise(
  start: Starter,
  log_path: str | os.PathLike[str],
  on_death: Callable[[str, bool], None],
  is_over: Callable[[], bool],
  *,
  max_failures: int = 3,
  stable_seconds: float = 60.0,
  hang_seconds: float = 60.0,
  start_seconds: float = 300.0,
  environment: Mapping[str, str] | None = None,
  backoff_seconds: float = 1.0,
) -> bool:
  """Runs a process until it succeeds, or has failed too often.

  Args:
    start: starts it. It should call `die_with_parent` and, from a thread,
      `beat` about once a second (`keep_beating`).
    log_path: what its output is appended to.
    on_death: called with the cause, in words, and whether it was the last time,
      whenever it has failed.
    is_over: asked now and then; where it says so, a process that does not end
      by itself is killed, and one that has ended is not started again.
    max_failures: failures in a row after which it is given up. One that is told
      to end has not failed.
    stable_seconds: a process that ran for so long was no failure in a row.
    hang_seconds: seconds without a beat after which it is killed.
    start_seconds: the same for the first beat.
    environment: more environment variables of its.
    backoff_seconds: wait before the second start, doubled for each further one
      in a row.

  Returns:
    Whether it succeeded, or was no longer needed.
  """
  failures = 0
  while True:
    started_at = time.monotonic()
    death = _run_once(
      start, log_path, is_over, hang_seconds, start_seconds, environment or {}
    )
    if death is None or is_over():
      return True
    if time.monotonic() - started_at >= stable_seconds:
      failures = 0
    if not death.evicted:
      failures += 1
    given_up = failures >= max_failures or death.final
    on_death(str(death), given_up)
    if given_up:
      return False
    if _wait(backoff_seconds * 2 ** max(0, failures - 1), is_over):
      return True


def die_with_parent() -> None:
  """Has the kernel kill this process when the one that started it dies."""
  parent = os.getppid()
  ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
  if os.getppid() != parent:  # It has died meanwhile.
    os.kill(os.getpid(), signal.SIGKILL)


def keep_beating() -> None:
  """Beats once a second from now on, in a thread."""

  def run() -> None:
    while True:
      beat()
      time.sleep(1.0)

  threading.Thread(target=run, name="heartbeat", daemon=True).start()


def beat() -> None:
  """Tells the supervisor, if there is one, that this process is alive."""
  descriptor = os.environ.get(HEARTBEAT_VARIABLE)
  if descriptor is not None:
    # One that is busy for long need not be told again.
    with contextlib.suppress(BlockingIOError):
      os.write(int(descriptor), b".")


def _run_once(
  start: Starter,
  log_path: str | os.PathLike[str],
  is_over: Callable[[], bool],
  hang_seconds: float,
  start_seconds: float,
  environment: Mapping[str, str],
) -> Death | None:
  """Runs the process once; returns what it died of, None if all is well."""
  try:
    process, beats = _start(start, log_path, environment)
  except OSError as error:  # The machine may have room for it soon.
    return Death(None, start_error=error)
  try:
    last_beat = time.monotonic()
    patience = start_seconds
    over_since: float | None = None
    while process.poll() is None:
      if select.select([beats], [], [], _POLL_SECONDS)[0]:
        if os.read(beats, 4096):
          last_beat = time.monotonic()
          patience = hang_seconds
        else:  # It is about to end, or has closed its end.
          time.sleep(_POLL_SECONDS)
      now = time.monotonic()
      if over_since is None and is_over():
        over_since = now
      if over_since is not None and now - over_since > _KILL_SECONDS:
        return None
      if now - last_beat > patience:
        return Death(None, patience)
  finally:
    if process.poll() is None:
      process.kill()
      process.wait()
    os.close(beats)
  return None if process.returncode == 0 else Death(process.returncode)


def _start(
  start: Starter,
  log_path: str | os.PathLike[str],
  environment: Mapping[str, str],
) -> tuple[Process, int]:
  """Starts the process; returns it, and where its beats are read."""
  with contextlib.ExitStack() as on_error, contextlib.ExitStack() as stack:
    beats, beats_end = os.pipe()
    on_error.callback(os.close, beats)
    stack.callback(os.close, beats_end)
    os.set_blocking(beats_end, False)
    log = stack.enter_context(open(log_path, "ab"))
    process = start(
      log, beats_end, {**environment, HEARTBEAT_VARIABLE: str(beats_end)}
    )
    on_error.pop_all()
  return process, beats


def _wait(seconds: float, is_over: Callable[[], bool]) -> bool:
  """Waits; returns True at once if the run is over."""
  end = time.monotonic() + seconds
  while not is_over():
    left = end - time.monotonic()
    if left <= 0:
      return False
    time.sleep(min(left, _POLL_SECONDS))
  return True
