"""The main program of a process of a distributed run.

  python -m acme_qsm.distributed.processes.process
    <run file> <name> <coordinator address>

The run file holds a pickled `nodes.Run`, written by whoever starts the process.
"""

import faulthandler
import io
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from typing import Any

from acme_qsm.distributed.coordination import link
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.processes import supervision

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
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
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


def main(path: str, name: str, address: str) -> int:
  """Runs a process of a run; returns its exit code."""
  drop_output_on_errors()
  supervision.die_with_parent()
  supervision.keep_beating()
  faulthandler.enable()
  # Whoever started the run hears of Ctrl-C, and says so to the coordinator.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with open(path, "rb") as file:
    run: Any = pickle.load(file)
  client = connect(address, run.key)

  def interrupt(*unused_arguments: Any) -> None:
    # Not here and now: the main thread may be in the middle of a call.
    reason = f"{name} got SIGTERM"
    threading.Thread(target=client.call, args=("interrupt", reason)).start()

  signal.signal(signal.SIGTERM, interrupt)

  # As late as can be: they take long to load.
  from acme_qsm.distributed import nodes

  try:
    nodes.run_node(run, link.Link(name, client, host=run.host))
  except supervision.GiveUpError:
    traceback.print_exc()
    return supervision.GIVE_UP
  return 0


if __name__ == "__main__":
  try:
    code = main(*sys.argv[1:])
  except BaseException:
    traceback.print_exc()
    code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  # Threads of TensorFlow, gRPC and environments may not hold up the end.
  os._exit(code)
