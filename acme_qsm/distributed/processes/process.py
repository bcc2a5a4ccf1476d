"""The main program of a process of a distributed run.

  python -m acme_qsm.distributed.processes.process
    <run file> <name> <coordinator address>

The run file is written by whoever starts the process: see `write_run_file`.
"""

import dataclasses
import faulthandler
import io
import os
import pickle
import signal
import sys
import time
import traceback
from typing import Any
from typing import NoReturn

from acme_qsm.distributed.coordination import link
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.processes import supervision
from acme_qsm.experiments.surroundings import interruption
from acme_qsm.experiments.surroundings import own_modules

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment variables: numpy uses one core."""

_COORDINATOR_SECONDS = 120.0


def environment_variables(name: str) -> dict[str, str]:
  """What must be set before a process starts, for it to do its part alone.

  Args:
    name: the process's name in the run.

  Returns:
    Environment variables: only the learner sees the accelerator, and the others
    use one core each. What is set already stays for the learner.
  """
  if name == "learner":
    return {}
  flags = os.environ.get("XLA_FLAGS", "")
  return {
    "JAX_PLATFORMS": "cpu",
    # Its elder name; of a platform that is not there it makes an error.
    "JAX_PLATFORM_NAME": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    **ONE_THREAD,
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
  }


def connect(address: str, key: bytes) -> rpc.Client:
  """Connects to the coordinator, which may be starting still.

  Args:
    address: its address.
    key: the run's.

  Returns:
    A client that has been answered.

  Raises:
    ConnectionError: if it does not answer within two minutes.
  """
  client = rpc.Client(address, key)
  end = time.monotonic() + _COORDINATOR_SECONDS
  while True:
    try:
      client.call("status")
      return client
    except rpc.UnavailableError:
      if time.monotonic() > end:
        raise
      time.sleep(0.2)


class _LossyFile(io.FileIO):
  """A file that drops what cannot be written."""

  def write(self, data: Any, /) -> int:
    try:
      return super().write(data)
    except OSError:
      return memoryview(data).nbytes


def drop_output_on_errors() -> None:
  """Has nobody fail who prints, or logs, while the disk is full."""
  sys.stdout.flush()
  sys.stdout, sys.stderr = (
    io.TextIOWrapper(
      io.BufferedWriter(_LossyFile(descriptor, "wb", closefd=False)),
      errors="backslashreplace",
      line_buffering=True,
    )
    for descriptor in (1, 2)
  )


def write_run_file(path: str, key: bytes, host: str, run: bytes) -> None:
  """Writes what `main` is told.

  Args:
    path: where to.
    key: the run's.
    host: the IP address that the process's servers are to listen on.
    run: the pickled `nodes.Run`, which is for later: it takes long to load.
  """
  with open(path, "wb") as file:
    pickle.dump((key, host, run), file)


def main(path: str, name: str, address: str) -> int:
  """Runs a process of a run.

  Args:
    path: the run file.
    name: the process's name in the run.
    address: the coordinator's.

  Returns:
    Its exit code.
  """
  drop_output_on_errors()
  supervision.die_with_parent()
  supervision.keep_beating()
  faulthandler.enable()
  # Whoever started the run hears of Ctrl-C, and says so to the coordinator.
  interruption.leave_to_launcher()
  with open(path, "rb") as file:
    key, host, run = pickle.load(file)
  node_link = link.Link(name, connect(address, key), host=host)
  return work(run, node_link)


def work(run: bytes, node_link: link.Link) -> int:
  """Does a process's part until it is to end.

  SIGTERM ends this process alone; before this, it had nothing to save.

  Args:
    run: the pickled `nodes.Run`.
    node_link: the process's link.

  Returns:
    The exit code that says why.
  """
  signal.signal(signal.SIGTERM, lambda *unused: node_link.evict())

  own_modules.find()
  # As late as can be: it takes long to load.
  from acme_qsm.distributed import nodes

  try:
    told: Any = dataclasses.replace(pickle.loads(run), host=node_link.host)
    nodes.run_node(told, node_link)
  except supervision.GiveUpError:
    traceback.print_exc()
    return supervision.ExitCode.GIVE_UP
  if node_link.evicted:
    return supervision.ExitCode.EVICTED
  return supervision.ExitCode.DONE


def run(path: str, name: str, address: str) -> NoReturn:
  """Is a process of a run, and nothing after that: see `main`."""
  try:
    code = main(path, name, address)
  except BaseException:
    traceback.print_exc()
    code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  # Threads of TensorFlow, gRPC and environments may not hold up the end.
  os._exit(code)


if __name__ == "__main__":
  run(*sys.argv[1:])
