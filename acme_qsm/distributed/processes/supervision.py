"""Keeps a process of a run alive: starts it again when it dies or hangs.

For engines that do not restart processes themselves. Imports nothing but the
standard library, so that who supervises costs little beside what it supervises.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

# Exit codes of processes that end themselves.
GIVE_UP = 70
"""Exit code of a process that should not be started again."""
HUNG, CUT_OFF, REPLAY_MOVED = 71, 72, 73
_CAUSES = {
  GIVE_UP: "its environment always failed",
  HUNG: "its environment hung",
  CUT_OFF: "it was cut off from the coordinator",
  REPLAY_MOVED: "it lost replay",
}

_HEARTBEAT_VARIABLE = "ACME_QSM_HEARTBEAT"
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.25
_KILL_SECONDS = 20.0


class GiveUpError(Exception):
  """A process cannot do its part; starting it again would not help."""


def supervise(
  command: Sequence[str],
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
  """Runs a command until it succeeds, or has failed too often.

  Args:
    command: the command. Its process should call `die_with_parent` and, from a
      thread, `beat` about once a second (`keep_beating`).
    log_path: what its output is appended to.
    on_death: called with the cause, and whether it was the last time, whenever
      it has failed.
    is_over: asked now and then; where it says so, a process that does not end
      by itself is killed, and one that has ended is not started again.
    max_failures: failures in a row after which it is given up.
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
    start = time.monotonic()
    cause = _run_once(
      command, log_path, is_over, hang_seconds, start_seconds, environment or {}
    )
    if cause is None or is_over():
      return True
    if time.monotonic() - start >= stable_seconds:
      failures = 0
    failures += 1
    given_up = failures >= max_failures or cause == _CAUSES[GIVE_UP]
    on_death(cause, given_up)
    if given_up:
      return False
    if _wait(backoff_seconds * 2 ** (failures - 1), is_over):
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
  descriptor = os.environ.get(_HEARTBEAT_VARIABLE)
  if descriptor is not None:
    # One that is busy for long need not be told again.
    with contextlib.suppress(BlockingIOError):
      os.write(int(descriptor), b".")


def _run_once(
  command: Sequence[str],
  log_path: str | os.PathLike[str],
  is_over: Callable[[], bool],
  hang_seconds: float,
  start_seconds: float,
  environment: Mapping[str, str],
) -> str | None:
  """Runs the command once; returns what it died of, None if all is well."""
  beats, beats_end = os.pipe()
  os.set_blocking(beats_end, False)
  with open(log_path, "ab") as log:
    process = subprocess.Popen(
      command,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      pass_fds=[beats_end],
      env={**os.environ, **environment, _HEARTBEAT_VARIABLE: str(beats_end)},
    )
  os.close(beats_end)
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
        return f"it gave no sign of life for {patience:g} seconds"
  finally:
    if process.poll() is None:
      process.kill()
      process.wait()
    os.close(beats)
  return _exit_cause(process.returncode)


def _exit_cause(code: int) -> str | None:
  if code == 0:
    return None
  if code in _CAUSES:
    return _CAUSES[code]
  if code < 0:
    try:
      return f"killed by {signal.Signals(-code).name}"
    except ValueError:
      return f"killed by signal {-code}"
  return f"exit code {code}"


def _wait(seconds: float, is_over: Callable[[], bool]) -> bool:
  """Waits; returns True at once if the run is over."""
  end = time.monotonic() + seconds
  while not is_over():
    left = end - time.monotonic()
    if left <= 0:
      return False
    time.sleep(min(left, _POLL_SECONDS))
  return True
