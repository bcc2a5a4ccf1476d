"""The main program of a process of a distributed run, and how it is started."""

import contextlib
import ctypes
import dataclasses
import faulthandler
import gc
import importlib
import io
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from collections.abc import Mapping
from multiprocessing import process as mp_process
from typing import Any
from typing import NoReturn

from acme_qsm.distributed.coordination import link
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.processes import supervision
from acme_qsm.experiments.surroundings import interruption
from acme_qsm.experiments.surroundings import own_modules

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_COORDINATOR_SECONDS = 120.0
_PR_SET_NAME = 15


@dataclasses.dataclass(frozen=True)
class Assignment:
  """What a process of a run is told, beside its name.

  Attributes:
    run: the pickled `DistributedRun`, opaque here: a supervisor or an engine
      loads nothing of what the processes need.
    key: what the run's processes know each other by.
    host: the IP address that the process's servers are to listen on.
    coordinator: the coordinator's address.
    log_folder: where its output goes, as `<name>.log`; None for nowhere.
  """

  run: bytes
  key: bytes
  host: str
  coordinator: str
  log_folder: str | None


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
    **_ONE_THREAD,
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "XLA_FLAGS": f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
  }


def load() -> None:
  """Loads Reverb, TensorFlow and JAX, for the processes that are to be forked.

  Loading them is most of what a process does before its own work. None of them
  starts a thread, makes a backend or opens a connection when it is loaded.
  """
  # numpy starts threads when it is loaded, and TensorFlow prints.
  with _environment({**_ONE_THREAD, "TF_CPP_MIN_LOG_LEVEL": "2"}):
    from acme_qsm.distributed import nodes

    for role in nodes.ROLES:
      importlib.import_module(f"{nodes.__name__}.{role}")
  # So that collecting garbage does not write to pages that are shared.
  gc.collect()
  gc.freeze()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
  before = dict(os.environ)
  os.environ.update(variables)
  try:
    yield
  finally:
    os.environ.clear()
    os.environ.update(before)


def start(assignment: Assignment, name: str) -> mp_process.BaseProcess:
  """Starts a process: forked from this one, or afresh where this has threads.

  A fork has but one thread, so that what another held is held for ever. Those
  of numpy, which Launchpad loads, do not count: numpy ends them for a fork.

  Args:
    assignment: what it is told.
    name: its name in the run.

  Returns:
    The process.

  Raises:
    OSError: if the machine has no room for it.
  """
  alone = threading.active_count() == 1
  context: Any = multiprocessing.get_context("fork" if alone else "spawn")
  process = context.Process(target=_run, args=(assignment, name), name=name)
  process.start()
  return process


def _run(assignment: Assignment, name: str) -> NoReturn:
  """Is a process of a run, and nothing after that."""
  try:
    code = _main(assignment, name)
  except BaseException:
    traceback.print_exc()
    code = 1
  sys.stdout.flush()
  sys.stderr.flush()
  # Threads of TensorFlow, gRPC and environments may not hold up the end.
  os._exit(code)


def _main(assignment: Assignment, name: str) -> int:
  supervision.die_with_parent()
  for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM):
    signal.signal(number, signal.SIG_DFL)
  # The launcher hears of Ctrl-C, and tells the coordinator.
  interruption.leave_to_launcher()
  _become(name)
  redirect_output(
    f"{assignment.log_folder}/{name}.log" if assignment.log_folder else None
  )
  faulthandler.enable()
  client = connect(assignment.coordinator, assignment.key)
  return work(assignment.run, link.Link(name, client, host=assignment.host))


def _become(name: str) -> None:
  """Takes on what tells this process from the one that it was forked from."""
  os.environ.update(environment_variables(name))
  # For lists of processes: all have the same command line.
  ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())
  # These have been loaded before this process's environment was set.
  if "jax" in sys.modules:
    config = sys.modules["jax"].config
    for option in ("jax_platforms", "jax_platform_name"):
      if option.upper() in os.environ:
        config.update(option, os.environ[option.upper()])
  if "numpy" in sys.modules:
    sys.modules["numpy"].random.seed()


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


def redirect_output(path: str | None) -> None:
  """Appends this process's output to a file, of which it is no failure to fill.

  What cannot be written while the disk is full is dropped.

  Args:
    path: the file's; None for nowhere.
  """
  for stream in (sys.stdout, sys.stderr):
    stream.flush()
  if path is not None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path or os.devnull, "ab") as file:
    for descriptor in (1, 2):
      os.dup2(file.fileno(), descriptor)
  sys.stdout, sys.stderr = (
    io.TextIOWrapper(
      io.BufferedWriter(_LossyFile(descriptor, "wb", closefd=False)),
      errors="backslashreplace",
      line_buffering=True,
    )
    for descriptor in (1, 2)
  )
  # Whatever engine started this process may have had its own way to log.
  logging.basicConfig(
    stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True
  )


def work(run: bytes, node_link: link.Link) -> int:
  """Does a process's part until it is to end.

  SIGTERM ends this process alone; before this, it had nothing to save.

  Args:
    run: the pickled `DistributedRun`.
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
