"""Forks a run's processes from one that has loaded what all of them need.

  python -m acme_qsm.distributed.processes.fork_server <socket> <lifeline>

Each would load Reverb, TensorFlow and JAX by itself else, which is most of a
run's start where there are more processes than cores. What is forked has no
thread, no backend of JAX's and no channel of gRPC's; where it had, nothing is
forked, and whoever asked starts a process of its own.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import BinaryIO
from typing import NoReturn

from acme_qsm.distributed.processes import process
from acme_qsm.distributed.processes import supervision
from acme_qsm.experiments.surroundings import interruption
from acme_qsm.experiments.surroundings import own_modules

SOCKET_VARIABLE = "ACME_QSM_FORK_SERVER"
"""Environment variable: the name of the socket of this run's fork server."""

NODES = (
  "acme_qsm.distributed.nodes.replay",
  "acme_qsm.distributed.nodes.learner",
  "acme_qsm.distributed.nodes.actor",
  "acme_qsm.distributed.nodes.evaluator",
)
"""What replay, the learner, actors and the evaluator load before they start."""

# How long the libraries may take to load.
_LOAD_SECONDS = 120.0
# Until it looks again whether there is a descriptor left for who asks.
_RETRY_SECONDS = 0.1
_STARTED = b"started"
_MAX_BYTES = 1 << 20
_PR_SET_NAME = 15


def start(modules: Sequence[str] = NODES) -> subprocess.Popen:
  """Starts a fork server, which ends with this process.

  Args:
    modules: what it loads. None of them may start a thread.

  Returns:
    The fork server.
  """
  # Abstract: there is no file to be left behind.
  name = f"acme_qsm-{secrets.token_hex(16)}"
  lifeline, _ = os.pipe()
  with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
    listener.bind(f"\0{name}")
    listener.listen(128)
    server = subprocess.Popen(
      own_modules.command(
        __name__, str(listener.fileno()), str(lifeline), *modules
      ),
      stdin=subprocess.DEVNULL,
      # What it has to say, whoever takes its place says too.
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      pass_fds=[listener.fileno(), lifeline],
      # numpy starts threads when it is loaded.
      env={**os.environ, **process.ONE_THREAD},
    )
  os.close(lifeline)
  # The other end stays open for as long as this process lives.
  os.environ[SOCKET_VARIABLE] = name
  return server


def start_once() -> None:
  """Starts a fork server if this process has none: see `start`."""
  if SOCKET_VARIABLE not in os.environ:
    start()


def starter(path: str, name: str, address: str) -> supervision.Starter:
  """What starts a process of a run, by a fork where there is a fork server.

  Args:
    path: see `process.main`, as for the others.
    name: the process's name in the run.
    address: the coordinator's.
  """

  def start_process(
    log: BinaryIO, descriptor: int, environment: Mapping[str, str]
  ) -> supervision.Process:
    forked = _fork([path, name, address], log, descriptor, environment)
    if forked is not None:
      return forked
    command = own_modules.command(process.__name__, path, name, address)
    return supervision.starter(command)(log, descriptor, environment)

  return start_process


class ForkedProcess:
  """A process that a fork server has started: see `subprocess.Popen`.

  It ends when this end of the connection is closed.
  """

  def __init__(self, connection: socket.socket):
    self._connection = connection
    self.returncode: int | None = None

  def poll(self) -> int | None:
    """Its exit code, negative for a signal's number; None if it is alive."""
    return self._read(socket.MSG_DONTWAIT)

  def wait(self) -> int:
    """Waits for its end; returns its exit code."""
    code = self._read(0)
    assert code is not None
    return code

  def kill(self) -> None:
    """Has it killed."""
    # Not there any more if its fork server has ended, and it with that.
    with contextlib.suppress(OSError):
      self._connection.shutdown(socket.SHUT_WR)

  def _read(self, flags: int) -> int | None:
    if self.returncode is None:
      try:
        told = self._connection.recv(_MAX_BYTES, flags)
      except BlockingIOError:
        return None
      except ConnectionError:
        told = b""
      # It dies with its fork server.
      self.returncode = int(told) if told else -signal.SIGKILL
      self._connection.close()
    return self.returncode


def _fork(
  arguments: Sequence[str],
  log: BinaryIO,
  descriptor: int,
  environment: Mapping[str, str],
) -> ForkedProcess | None:
  """Has the fork server fork; returns None if there is none, or it cannot."""
  name = os.environ.get(SOCKET_VARIABLE)
  if name is None:
    return None
  connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  connection.settimeout(_LOAD_SECONDS)
  request = {
    "arguments": arguments,
    "environment": {**os.environ, **environment},
  }
  try:
    connection.connect(f"\0{name}")
    socket.send_fds(
      connection, [json.dumps(request).encode()], [log.fileno(), descriptor]
    )
    if connection.recv(_MAX_BYTES) == _STARTED:
      connection.settimeout(None)
      return ForkedProcess(connection)
  except OSError:
    pass
  connection.close()
  return None


class CannotForkError(Exception):
  """There is something in this process that a fork would break."""


def require_forkable() -> None:
  """Raises CannotForkError if there is a thread, a connection or a backend."""
  threads = os.listdir("/proc/self/task")
  if len(threads) > 1:
    raise CannotForkError(f"There are {len(threads)} threads.")
  bridge = sys.modules.get("jax._src.xla_bridge")
  if bridge is not None and bridge.backends_are_initialized():
    raise CannotForkError("JAX has a backend.")


class _Server:
  """Serves who asks for processes, until its starter has ended."""

  def __init__(self, listener: socket.socket, lifeline: int):
    self._selector = selectors.DefaultSelector()
    self._selector.register(lifeline, selectors.EVENT_READ, sys.exit)
    self._selector.register(listener, selectors.EVENT_READ, self._accept)
    self._listener = listener

  def serve(self) -> NoReturn:
    """Serves; ends this process, and with it all others, in the end."""
    while True:
      # One at a time: what it does may close what another of them is of.
      for key, _ in self._selector.select()[:1]:
        key.data()

  def _accept(self) -> None:
    try:
      connection, _ = self._listener.accept()
    except OSError:  # There is no descriptor left, for now.
      time.sleep(_RETRY_SECONDS)
      return
    credentials = connection.getsockopt(
      socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    if struct.unpack("3i", credentials)[1] != os.getuid():
      connection.close()
      return
    self._selector.register(
      connection,
      selectors.EVENT_READ,
      functools.partial(self._answer, connection),
    )

  def _answer(self, connection: socket.socket) -> None:
    """Forks, as asked for; the child does not return from here."""
    self._selector.unregister(connection)
    try:
      pid, ended = self._fork(connection)
    except (CannotForkError, OSError):  # Who asked starts one of its own.
      connection.close()
      return
    self._selector.register(
      connection,
      selectors.EVENT_READ,
      functools.partial(self._kill, connection, ended),
    )
    self._selector.register(
      ended,
      selectors.EVENT_READ,
      functools.partial(self._bury, connection, ended, pid),
    )
    with contextlib.suppress(OSError):
      connection.send(_STARTED)

  def _fork(self, connection: socket.socket) -> tuple[int, int]:
    """Forks, as asked for; returns the child's number and descriptor.

    Raises:
      CannotForkError: if this process cannot be forked, or nobody asks.
      OSError: if the machine has no room for another process.
    """
    with contextlib.ExitStack() as stack:
      request, descriptors, *_ = socket.recv_fds(connection, _MAX_BYTES, 2)
      for descriptor in descriptors:
        stack.callback(os.close, descriptor)
      if not request or len(descriptors) != 2:
        raise CannotForkError("Who asked has ended, or too much is open.")
      require_forkable()
      pid = os.fork()
      if pid == 0:
        try:
          connection.close()
          self._close()
          _run(json.loads(request), *descriptors)
        finally:  # Never a second server.
          os._exit(1)
    try:
      return pid, os.pidfd_open(pid)
    except OSError:  # Nobody would hear of its end.
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
      raise

  def _close(self) -> None:
    """Closes all that a process has no business with that was forked."""
    for key in self._selector.get_map().values():
      os.close(key.fd)
    self._selector.close()

  def _kill(self, connection: socket.socket, ended: int) -> None:
    """Kills a process whose supervisor asks for that, or has ended."""
    self._selector.unregister(connection)
    signal.pidfd_send_signal(ended, signal.SIGKILL)

  def _bury(self, connection: socket.socket, ended: int, pid: int) -> None:
    """Tells its supervisor how a process has ended."""
    self._selector.unregister(ended)
    os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(KeyError):  # It was asked to kill it.
      self._selector.unregister(connection)
    with contextlib.suppress(OSError):
      connection.send(str(code).encode())
    connection.close()


def _run(request: Any, log: int, descriptor: int) -> NoReturn:
  """Is the process that was asked for."""
  try:
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.argv = [process.__file__, *request["arguments"]]
    _become(request["arguments"][1], request["environment"], descriptor)
  except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
  process.run(*request["arguments"])


def _become(name: str, environment: dict[str, str], descriptor: int) -> None:
  """Undoes what a process has from the one that it was forked from."""
  environment[supervision.HEARTBEAT_VARIABLE] = str(descriptor)
  before = dict(os.environ)
  os.environ.clear()
  os.environ.update(environment)
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  # For who lists processes: all have the same command line.
  ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())
  if "jax" in sys.modules:
    # It has read them, unlike all else, when it was loaded.
    for variable in environment:
      if environment[variable] != before.get(variable):
        _configure_jax(sys.modules["jax"].config, variable)
  if "numpy" in sys.modules:
    sys.modules["numpy"].random.seed()


def _configure_jax(config: Any, variable: str) -> None:
  """Has JAX heed an environment variable, if it is one of its own."""
  name, value = variable.lower(), os.environ[variable]
  present = getattr(config, name, None) if name.startswith("jax_") else None
  if isinstance(present, bool):
    config.update(name, value.lower() in ("1", "true", "t", "yes", "y", "on"))
  elif isinstance(present, int | float):
    config.update(name, type(present)(value))
  elif present is not None or name in config.values:
    config.update(name, value)


def main(listener: str, lifeline: str, *modules: str) -> NoReturn:
  """Loads modules, and then forks processes until its starter has ended."""
  # It is for the processes that it forks to hear of these.
  interruption.leave_to_launcher()
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  for module in modules:
    importlib.import_module(module)
  require_forkable()
  # So that collecting garbage does not write to pages that are shared.
  gc.collect()
  gc.freeze()
  _Server(socket.socket(fileno=int(listener)), int(lifeline)).serve()


if __name__ == "__main__":
  main(*sys.argv[1:])
