"""What the two nodes of a Launchpad program do.

One coordinates the run. The other watches over the run's processes, which it
forks from itself; or, where Launchpad starts threads, it does their work in
threads. Launchpad's processes load this module, so it is light.
"""

import contextlib
import os
import pickle
import select
import signal
import threading
import time
import traceback
import typing
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import launchpad as lp
from launchpad import context as lp_context

from acme_qsm.distributed.coordination import liveness
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.messages import Phase
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

_STATUS_SECONDS = 1.0
_CUT_SECONDS = 120.0
# A process that the coordinator has not heard of for so long is started again.
_HANG_SECONDS = 60.0


def address_of(port_address: lp.Address, host: str) -> str:
  """The address of the server that listens on Launchpad's port of a host."""
  return addresses.join(host, _port(port_address))


def _port(port_address: lp.Address) -> int:
  return addresses.split(port_address.resolve())[1]


def coordinate(config: "CoordinatorConfig", port_address: lp.Address) -> None:
  """The program of the node "coordinator"."""
  from acme_qsm.distributed.coordination.run_coordinator import run_coordinator

  if threading.current_thread() is threading.main_thread():
    client = rpc.Client(address_of(port_address, config.host), config.key)
    interruption.leave_to_launcher()
    # It cannot be replaced: the run ends with it, but saves first. From a
    # thread, since the main thread may be in the middle of a call.
    interrupt = ("interrupt", "the coordinator got SIGTERM")
    signal.signal(
      signal.SIGTERM,
      lambda *unused: threading.Thread(
        target=client.call, args=interrupt
      ).start(),
    )
    threading.Thread(target=_end_with_launcher, daemon=True).start()
  run_coordinator(config, _port(port_address))


def _end_with_launcher(seconds: float | None = None) -> None:
  """Ends this process if the launcher has ended.

  Args:
    seconds: how long to wait for that; None to wait without end.
  """
  launcher = os.environ.get(LAUNCHER_VARIABLE)
  if launcher is None:
    return
  with contextlib.suppress(ProcessLookupError):
    descriptor = os.pidfd_open(int(launcher))
    try:
      if not select.select([descriptor], [], [], seconds)[0]:
        return
    finally:
      os.close(descriptor)
  os._exit(1)


def run_processes(
  run: bytes,
  names: Sequence[str],
  log_folder: str | None,
  key: bytes,
  host: str,
  port_address: lp.Address,
) -> None:
  """The program of the node "processes".

  Args:
    run: the pickled `DistributedRun`.
    names: the processes' names in the run.
    log_folder: where each one's output goes, as `<name>.log`.
    key: the run's.
    host: the IP address that its servers listen on.
    port_address: the coordinator's.
  """
  coordinator = address_of(port_address, host)
  assignment = process.Assignment(run, key, host, coordinator, log_folder)
  launch_type = lp_context.get_context().launch_type
  in_threads = launch_type in (
    lp_context.LaunchType.LOCAL_MULTI_THREADING,
    lp_context.LaunchType.TEST_MULTI_THREADING,
  )
  observer = _Observer(rpc.Client(coordinator, key))
  try:
    (_run_in_threads if in_threads else _supervise)(assignment, names, observer)
  except BaseException as error:  # The run would wait for them without end.
    traceback.print_exc()
    for name in names:
      observer.tell_lost(name, f"{type(error).__name__}: {error}", final=True)


def _supervise(
  assignment: process.Assignment, names: Sequence[str], observer: "_Observer"
) -> None:
  """Watches over processes, which end with this one."""
  if threading.current_thread() is threading.main_thread():
    interruption.leave_to_launcher()
    # That is for the processes watched over, each by itself.
    signal.signal(signal.SIGTERM, lambda *unused: None)

  def is_over() -> bool:
    _end_with_launcher(0.0)
    return observer.is_over()

  process.load()
  supervision.supervise(
    lambda name: process.start(assignment, name),
    names,
    lambda name, death: observer.tell_lost(
      name, str(death), failed=death.failed, final=death.final
    ),
    is_over,
    observer.is_hung,
  )


def _run_in_threads(
  assignment: process.Assignment, names: Sequence[str], observer: "_Observer"
) -> None:
  """Does the work of the run's processes in threads of this process."""
  process.connect(assignment.coordinator, assignment.key)
  run = pickle.loads(assignment.run)

  from acme_qsm.distributed import nodes
  from acme_qsm.distributed.coordination import link

  def work(name: str) -> None:
    given_up = False
    while not given_up and not observer.is_over():
      client = rpc.Client(assignment.coordinator, assignment.key)
      node_link = link.Link(
        name, client, host=assignment.host, end_process=None
      )
      try:
        nodes.run_node(run, node_link)
        return
      except BaseException as error:
        node_link.close()
        traceback.print_exc()
        given_up = observer.tell_lost(
          name,
          f"{type(error).__name__}: {error}",
          final=isinstance(error, supervision.GiveUpError),
        )

  threads = [threading.Thread(target=work, args=(name,)) for name in names]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()


class _Observer:
  """Tells the coordinator of deaths, and asks it how the run does."""

  def __init__(self, client: rpc.Client):
    self._client = client
    self._asked_at = float("-inf")
    self._lifeline = liveness.Lifeline(cut_seconds=_CUT_SECONDS)
    self._over = False
    self._nodes: Mapping[str, Any] = {}

  def tell_lost(self, name: str, cause: str, **kwargs: bool) -> bool:
    """Tells of a death; returns whether the process is given up."""
    # If it cannot be told, it is silent itself, and the run ends with that.
    with contextlib.suppress(ConnectionError, rpc.RemoteError):
      return self._client.call("lost", name, cause, **kwargs)
    return False

  def is_over(self) -> bool:
    """Whether the run is over, as it was about a second ago at most."""
    now = time.monotonic()
    if self._over or now - self._asked_at < _STATUS_SECONDS:
      return self._over
    self._nodes = {}
    try:
      status = self._client.call("status")
      self._lifeline.answered()
      self._over = Phase(status["phase"]).over
      self._nodes = status["nodes"]
    except (ConnectionError, rpc.RemoteError) as error:
      self._over = self._lifeline.is_gone(error)
    self._asked_at = time.monotonic()
    return self._over

  def is_hung(self, name: str, seconds: float) -> bool:
    """Whether a process that was started so long ago is not heard of."""
    silent = self._nodes.get(name, {}).get("silent_seconds", 0.0)
    return min(seconds, silent) > _HANG_SECONDS
