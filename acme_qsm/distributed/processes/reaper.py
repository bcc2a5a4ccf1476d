"""Ends what a process has left behind, once that process has ended.

  python -m acme_qsm.distributed.processes.reaper <process> <variable>=<value>

For children of children whose parents do not see to it. They are known by an
environment variable, which children inherit, and by what they descend from:
some write over their environment, to show a title of their own in its place.
"""

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from acme_qsm.experiments.surroundings import own_modules

_LOOK_SECONDS = 1.0
_ROUNDS = 20
_POLL_SECONDS = 0.5


class Process(NamedTuple):
  """A process; another with the same number has started at another time."""

  started: int
  pid: int


def start(variable: str) -> None:
  """Has all end, when this process ends, that it starts from now on.

  Args:
    variable: the environment variable to know them by; it is set here.
  """
  pid = str(os.getpid())
  # First, so that it does not know itself by the variable.
  subprocess.Popen(
    own_modules.command(__name__, pid, f"{variable}={pid}"),
    start_new_session=True,
  )
  os.environ[variable] = pid


def main(process: str, mark: str) -> None:
  """Waits for a process to end; then ends all that carry the mark."""
  known: set[Process] = set()
  with contextlib.suppress(ProcessLookupError):
    watched = os.pidfd_open(int(process))
    while not select.select([watched], [], [], _LOOK_SECONDS)[0]:
      known = find(mark, known)
  for _ in range(_ROUNDS):
    known = find(mark, known)
    if not known:
      return
    for found in known:
      with contextlib.suppress(ProcessLookupError):
        os.kill(found.pid, signal.SIGKILL)
    time.sleep(_POLL_SECONDS)


def find(mark: str, known: set[Process]) -> set[Process]:
  """Finds those alive that carry the mark, were known, or descend from such.

  Args:
    mark: the environment variable and its value, as `variable=value`.
    known: what was found before.
  """
  found = set()
  pids = set()
  # Parents first.
  for process, parent in sorted(_list_processes()):
    if process in known or parent in pids or _carries(process.pid, mark):
      found.add(process)
      pids.add(process.pid)
  return found


def _list_processes() -> list[tuple[Process, int]]:
  """Each process that has not ended, and its parent's number."""
  found = []
  for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      # The name before it, in brackets, may hold anything.
      fields = (path / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # It has ended.
      continue
    state, parent, started = fields[0], int(fields[1]), int(fields[19])
    if state not in "ZX":
      found.append((Process(started, int(path.name)), parent))
  return found


def _carries(pid: int, mark: str) -> bool:
  try:
    environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
  except OSError:  # It has ended, or is somebody else's.
    return False
  return mark.encode() in environment.split(b"\0")


if __name__ == "__main__":
  main(*sys.argv[1:])
