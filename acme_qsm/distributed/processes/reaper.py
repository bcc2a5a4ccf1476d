"""Ends what a process has left behind, once that process has ended.

  python -m acme_qsm.distributed.processes.reaper <process> <variable>=<value>

For children of children whose parents do not see to it. They are known by an
environment variable, which children inherit, and by what they descend from:
some write over their environment, to show a title of their own in its place.
"""

import contextlib
import os
import subprocess
import sys
import time

import psutil

from acme_qsm.experiments.surroundings import own_modules

_LOOK_SECONDS = 1.0
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
    own_modules.command(__name__, pid, f"{variable}={pid}"),
    start_new_session=True,
  )
  os.environ[variable] = pid


def main(process: str, mark: str) -> None:
  """Waits for a process to end; then ends all that carry the mark."""
  known: set[psutil.Process] = set()
  with contextlib.suppress(psutil.Error):
    watched = psutil.Process(int(process))
    while _is_alive(watched):
      known = find(mark, known)
      with contextlib.suppress(psutil.TimeoutExpired):
        watched.wait(_LOOK_SECONDS)
  for _ in range(_ROUNDS):
    known = find(mark, known)
    if not known:
      return
    for found in known:
      with contextlib.suppress(psutil.NoSuchProcess):
        found.kill()
    time.sleep(_POLL_SECONDS)


def find(mark: str, known: set[psutil.Process]) -> set[psutil.Process]:
  """Finds those alive that carry the mark, were known, or descend from such.

  Args:
    mark: the environment variable and its value, as `variable=value`.
    known: what was found before.
  """
  name, _, value = mark.partition("=")
  found, pids = set(), set()
  # Parents first.
  for process in sorted(psutil.process_iter(), key=_started_at):
    with contextlib.suppress(psutil.Error):
      if _is_alive(process) and (
        process in known
        or process.ppid() in pids
        or process.environ().get(name) == value
      ):
        found.add(process)
        pids.add(process.pid)
  return found


def _started_at(process: psutil.Process) -> float:
  with contextlib.suppress(psutil.NoSuchProcess):
    return process.create_time()
  return 0.0


def _is_alive(process: psutil.Process) -> bool:
  with contextlib.suppress(psutil.NoSuchProcess):
    return process.status() != psutil.STATUS_ZOMBIE
  return False


if __name__ == "__main__":
  main(*sys.argv[1:])
