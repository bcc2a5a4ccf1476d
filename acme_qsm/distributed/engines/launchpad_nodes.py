"""What the nodes of a Launchpad program do: watch over the run's processes.

Or, where Launchpad starts threads, be them. Launchpad's processes load this
module, so it is light.
"""

import contextlib
import dataclasses
import os
import pathlib
import pickle
import select
import signal
import tempfile
import threading
import time
import traceback
import typing
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import launchpad as lp
from launchpad import context as lp_context

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.processes import fork_server
from acme_qsm.distributed.processes import process
from acme_qsm.distributed.processes import supervision
from acme_qsm.experiments.surroundings import interruption
from acme_qsm.replay.listening import addresses

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.coordination.run_coordinator import (
    CoordinatorConfig,
  )

LAUNCHER_VARIABLE = "ACME_QSM_LAUNCHER"
"""Environment variable: the process without which all others are to end."""

_MAX_FAILURES = 3
_MAX_ACTOR_FAILURES = 5
_IS_OVER_SECONDS = 1.0
_CUT_SECONDS = 120.0


@dataclasses.dataclass(frozen=True)
class Group:
  """Processes of one Launchpad node.

  Attributes:
    run: the pickled `nodes.Run`, opaque here: who supervises loads none of it.
    key: the run's.
    names: the processes' names in the run.
    log_folder: where each one's output goes, as `<name>.log`.
  """

  run: bytes
  key: bytes
  names: Sequence[str]
  log_folder: str | None


def _port(port_address: lp.Address) -> int:
  return addresses.split(port_address.resolve())[1]


def address_of(port_address: lp.Address, host: str) -> str:
  """The address of who listens on Launchpad's port of a host."""
  return addresses.join(host, _port(port_address))


def coordinate(config: "CoordinatorConfig", port_address: lp.Address) -> None:
  """The program of the node "coordinator"."""
  from acme_qsm.distributed.coordination.run_coordinator import run_coordinator

  port = _port(port_address)
  client = rpc.Client(addresses.join(config.host, port), config.key)
  # It cannot be replaced: the run ends with it, but saves first.
  _leave_signals_to_the_launcher(
    lambda: client.call("interrupt", "the coordinator got SIGTERM")
  )
  run_coordinator(config, port)


def run_group(group: Group, host: str, port_address: lp.Address) -> None:
  """The program of all other nodes."""
  address = address_of(port_address, host)
  launch_type = lp_context.get_context().launch_type
  in_threads = launch_type in (
    lp_context.LaunchType.LOCAL_MULTI_THREADING,
    lp_context.LaunchType.TEST_MULTI_THREADING,
  )
  if not in_threads:
    # SIGTERM is for the processes watched over, each by itself.
    _leave_signals_to_the_launcher(lambda: None)
  run_one = _run_in_thread if in_threads else _run_in_process

  def run(name: str) -> None:
    try:
      run_one(group, name, host, address)
    except BaseException as error:  # The run would wait for it without end.
      traceback.print_exc()
      cause = f"{type(error).__name__}: {error}"
      _tell(rpc.Client(address, group.key), "lost", name, cause, True)

  threads = [
    threading.Thread(target=run, args=(name,), name=name)
    for name in group.names
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()


def _leave_signals_to_the_launcher(on_sigterm: Callable[[], Any]) -> None:
  """Ignores what all processes of a terminal get, as Ctrl-C; ends with it.

  The launcher tells the coordinator, who has the learner save first.

  Args:
    on_sigterm: called, from a thread, at SIGTERM, which does nothing else.
  """
  if threading.current_thread() is not threading.main_thread():
    return
  interruption.leave_to_launcher()
  # The main thread may be in the middle of a call.
  signal.signal(
    signal.SIGTERM, lambda *unused: threading.Thread(target=on_sigterm).start()
  )
  launcher = os.environ.get(LAUNCHER_VARIABLE)
  if launcher is None:
    return
  try:
    descriptor = os.pidfd_open(int(launcher))
  except ProcessLookupError:
    os._exit(1)

  def wait() -> None:
    select.select([descriptor], [], [])
    # The processes watched over die with this one.
    os._exit(1)

  threading.Thread(target=wait, name="launcher", daemon=True).start()


def _run_in_process(group: Group, name: str, host: str, address: str) -> None:
  """Supervises a process."""
  client = rpc.Client(address, group.key)
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".run"))
    process.write_run_file(file.name, group.key, host, group.run)
    log_folder = group.log_folder or stack.enter_context(
      tempfile.TemporaryDirectory()
    )
    pathlib.Path(log_folder).mkdir(parents=True, exist_ok=True)
    supervision.supervise(
      fork_server.starter(file.name, name, address),
      pathlib.Path(log_folder) / f"{name}.log",
      lambda cause, given_up: _tell(client, "lost", name, cause, given_up),
      _IsOver(client),
      max_failures=(
        _MAX_ACTOR_FAILURES if name.startswith("actor") else _MAX_FAILURES
      ),
      environment=process.environment_variables(name),
    )


def _run_in_thread(group: Group, name: str, host: str, address: str) -> None:
  """Runs what is a process's work in this process."""
  client = process.connect(address, group.key)
  run = pickle.loads(group.run)

  from acme_qsm.distributed import nodes
  from acme_qsm.distributed.coordination import link

  is_over = _IsOver(client)
  for attempt in range(_MAX_FAILURES):
    node_link = link.Link(name, client, host=host, end_process=None)
    try:
      nodes.run_node(run, node_link)
      return
    except Exception as error:
      node_link.close()
      if is_over():
        return
      if attempt == _MAX_FAILURES - 1 or isinstance(
        error, supervision.GiveUpError
      ):
        raise
      _tell(client, "lost", name, f"{type(error).__name__}: {error}", False)


def _tell(client: rpc.Client, *call: object) -> None:
  # If it cannot be told, it is silent itself, and the run ends with that.
  with contextlib.suppress(ConnectionError, rpc.RemoteError):
    client.call(*call)  # pyright: ignore[reportArgumentType]


class _IsOver:
  """Asks the coordinator whether the run is over, about once a second."""

  def __init__(self, client: rpc.Client):
    self._client = client
    self._asked_at = float("-inf")
    self._lifeline = rpc.Lifeline(cut_seconds=_CUT_SECONDS)
    self._over = False

  def __call__(self) -> bool:
    now = time.monotonic()
    if self._over or now - self._asked_at < _IS_OVER_SECONDS:
      return self._over
    try:
      status = self._client.call("status")
      self._lifeline.answered()
      self._over = Phase(status["phase"]).over
    except (ConnectionError, rpc.RemoteError) as error:
      self._over = self._lifeline.is_gone(error)
    self._asked_at = time.monotonic()
    return self._over
