"""Launchpad as the engine of a distributed run: processes and their restarts.

The processes that Launchpad starts only watch over the run's own, or, where it
starts threads, are the run. So this module, which they load, is light.
"""

import contextlib
import dataclasses
import os
import pathlib
import pickle
import select
import signal
import sys
import tempfile
import threading
import time
import typing
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import launchpad as lp
from launchpad import context as lp_context

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import Phase
from acme_qsm.distributed.processes import process
from acme_qsm.distributed.processes import supervision

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.coordination.run_coordinator import (
    CoordinatorConfig,
  )
  from acme_qsm.distributed.plan import Plan

LAUNCHER_VARIABLE = "ACME_QSM_LAUNCHER"
"""Environment variable: the process without which all others are to end."""

_MAX_FAILURES = 3
_MAX_ACTOR_FAILURES = 5
_IS_OVER_SECONDS = 1.0
_CUT_SECONDS = 120.0
# How long processes may take to end once the run is over.
_END_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class _Group:
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
  return int(port_address.resolve().rsplit(":", 1)[1])


def _address(port_address: lp.Address, host: str) -> str:
  return f"{host}:{_port(port_address)}"


def _coordinate(config: "CoordinatorConfig", port_address: lp.Address) -> None:
  """The program of the node "coordinator"."""
  from acme_qsm.distributed.coordination.run_coordinator import run_coordinator

  _leave_signals_to_the_launcher()
  run_coordinator(config, _port(port_address))


def _run_group(group: _Group, host: str, port_address: lp.Address) -> None:
  """The program of all other nodes."""
  address = _address(port_address, host)
  launch_type = lp_context.get_context().launch_type
  in_threads = launch_type in (
    lp_context.LaunchType.LOCAL_MULTI_THREADING,
    lp_context.LaunchType.TEST_MULTI_THREADING,
  )
  if not in_threads:
    _leave_signals_to_the_launcher()
  run_one = _run_in_thread if in_threads else _run_in_process
  threads = [
    threading.Thread(target=run_one, args=(group, name, address), name=name)
    for name in group.names
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()


def _leave_signals_to_the_launcher() -> None:
  """Ignores Ctrl-C, which all processes of a terminal get, and ends with it.

  The launcher tells the coordinator, who has the learner save first.
  """
  if threading.current_thread() is not threading.main_thread():
    return
  signal.signal(signal.SIGINT, signal.SIG_IGN)
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


def _run_in_process(group: _Group, name: str, address: str) -> None:
  """Supervises a process."""
  client = rpc.Client(address, group.key)
  with contextlib.ExitStack() as stack:
    file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".run"))
    file.write(group.run)
    file.flush()
    log_folder = group.log_folder or stack.enter_context(
      tempfile.TemporaryDirectory()
    )
    pathlib.Path(log_folder).mkdir(parents=True, exist_ok=True)
    supervision.supervise(
      [
        sys.executable,
        "-m",
        "acme_qsm.distributed.processes.process",
        file.name,
        name,
        address,
      ],
      pathlib.Path(log_folder) / f"{name}.log",
      lambda cause, given_up: _tell(client, "lost", name, cause, given_up),
      _IsOver(client),
      max_failures=(
        _MAX_ACTOR_FAILURES if name.startswith("actor") else _MAX_FAILURES
      ),
      environment=process.environment_variables(name),
    )


def _run_in_thread(group: _Group, name: str, address: str) -> None:
  """Runs what is a process's work in this process."""
  client = process.connect(address, group.key)
  run = pickle.loads(group.run)

  from acme_qsm.distributed import nodes
  from acme_qsm.distributed.coordination import link

  is_over = _IsOver(client)
  for attempt in range(_MAX_FAILURES):
    node_link = link.Link(name, client, host=run.host, end_process=None)
    try:
      nodes.run_node(run, node_link)
      return
    except Exception as error:
      node_link.close()
      if is_over():
        return
      given_up = attempt == _MAX_FAILURES - 1 or isinstance(
        error, supervision.GiveUpError
      )
      _tell(client, "lost", name, f"{type(error).__name__}: {error}", given_up)
      if given_up:
        raise


def _tell(client: rpc.Client, *call: object) -> None:
  # If it cannot be told, it is silent itself, and the run ends with that.
  with contextlib.suppress(ConnectionError):
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
    except ConnectionError as error:
      self._over = self._lifeline.is_gone(error)
    self._asked_at = time.monotonic()
    return self._over


class Program(lp.Program):
  """A Launchpad program that can be asked how it does."""

  def __init__(self, name: str, config: "CoordinatorConfig"):
    super().__init__(name)
    self._config = config
    self.coordinator_address = lp.Address("coordinator")

  def connect(self) -> rpc.Client:
    """Makes a client of the coordinator, once the program is launched."""
    address = _address(self.coordinator_address, self._config.host)
    return rpc.Client(address, self._config.key)


class LaunchpadRun:
  """A run whose processes are Launchpad's.

  Attributes:
    client: a client of the coordinator.
    host: the IP address that it listens on.
  """

  def __init__(self, plan: "Plan", launch_type: str):
    """Starts the run.

    Args:
      plan: what to run.
      launch_type: Launchpad's: "local_mp" for processes, or "local_mt" for
        threads of this process.
    """
    program = make_program(plan)
    os.environ[LAUNCHER_VARIABLE] = str(os.getpid())
    self._manager: Any = lp.launch(
      program, launch_type=launch_type, terminal="current_terminal"
    )
    self.client = program.connect()
    self.host = plan.coordinator.host

  def tend(self, status: Mapping[str, Any]) -> None:
    """Does nothing: each process has who watches over it."""

  def wait(self) -> None:
    """Waits for the processes to end, but not without end."""
    thread = threading.Thread(
      target=lambda: self._manager.wait(raise_error=False), daemon=True
    )
    thread.start()
    thread.join(_END_SECONDS)


def make_program(
  plan: "Plan", *, num_actors_per_node: int = 1, name: str = "agent"
) -> Program:
  """Makes the program: see `make_distributed_experiment`."""
  config = plan.coordinator
  program = Program(name, config)
  address = program.coordinator_address
  coordinator = lp.PyNode(_coordinate, config, address)
  coordinator.allocate_address(address)
  with program.group("coordinator"):
    program.add_node(coordinator)

  def add(label: str, names: Sequence[str]) -> None:
    log_folder = str(plan.log_folder) if plan.log_folder else None
    group = _Group(plan.run, plan.key, names, log_folder)
    with program.group(label):
      program.add_node(lp.PyNode(_run_group, group, config.host, address))

  for other in plan.others:
    add(other, [other])
  for i in range(0, len(plan.actors), num_actors_per_node):
    add("actor", plan.actors[i : i + num_actors_per_node])
  return program
