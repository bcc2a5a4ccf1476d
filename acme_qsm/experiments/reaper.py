"""Ends what a process has left behind, once that process has ended.

  python -m acme_qsm.experiments.reaper <process> <variable>=<value>

For children of children whose parents do not see to it. They are known by an
environment variable, which children inherit.
"""

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time

_ROUNDS = 20
_POLL_SECONDS = 0.5


def start(variable: str) -> None:
  """Has all end, when this process ends, that it starts from now on.

  Args:
    variable: the environment variable to know them by; it is set here.
  """
  pid = str(os.getpid())
  # First, so that it does not know itself by the variable.
  subprocess.Popen(
    [sys.executable, "-m", __name__, pid, f"{variable}={pid}"],
    start_new_session=True,
  )
  os.environ[variable] = pid


def main(process: str, mark: str) -> None:
  """Waits for a process to end; then ends all that carry the mark."""
  with contextlib.suppress(ProcessLookupError):
    select.select([os.pidfd_open(int(process))], [], [])
  for _ in range(_ROUNDS):
    found = [pid for pid in _list_processes() if _carries(pid, mark)]
    if not found:
      return
    for pid in found:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    time.sleep(_POLL_SECONDS)


def _list_processes() -> list[int]:
  return [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")]


def _carries(pid: int, mark: str) -> bool:
  try:
    environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
  except OSError:  # It has ended, or is somebody else's.
    return False
  return mark.encode() in environment.split(b"\0")


if __name__ == "__main__":
  main(*sys.argv[1:])
