"""Launchpad as the engine of a distributed run: processes and their restarts.

Its program has two nodes. One is the coordinator; the other watches over the
run's own processes: see `launchpad_nodes`.
"""

import os
import threading
import time
import typing
from collections.abc import Mapping
from typing import Any

import launchpad as lp

from acme_qsm.distributed.coordination import liveness
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.engines import launchpad_nodes
from acme_qsm.experiments.surroundings import interruption

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.coordination.run_coordinator import (
    CoordinatorConfig,
  )
  from acme_qsm.distributed.plan import Plan

# How long processes may take to end once the run is over.
_END_SECONDS = 60.0
# How long an interrupted run may take to save, and a coordinator to answer.
_SAVE_SECONDS = 60.0
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.2


class _Coordinator(lp.PyNode):
  """The coordinator's node.

  Launchpad tells its processes to end, and kills them ten seconds later. It
  calls back before; for that to be in place, this must hear of the launch.
  """

  def __init__(self, program: "Program", *args: Any):
    super().__init__(launchpad_nodes.coordinate, *args)
    self._program: Program | None = program

  def __getstate__(self) -> dict[str, Any]:
    # It is for the process that launches.
    return {**self.__dict__, "_program": None}

  def bind_addresses(self, **kwargs: Any) -> None:
    """Does what every node does, in the process that launches."""
    super().bind_addresses(**kwargs)
    in_main_thread = threading.current_thread() is threading.main_thread()
    # In other threads Python, and so Launchpad, gets no signals.
    if self._program is not None and in_main_thread:
      lp.register_stop_handler(self._program.interrupt)
      interruption.take_as_sigterm()


class Program(lp.Program):
  """A Launchpad program that can be asked how it does."""

  def __init__(self, name: str, config: "CoordinatorConfig"):
    super().__init__(name)
    self._config = config
    self.coordinator_address = lp.Address("coordinator")

  def connect(self) -> rpc.Client:
    """Makes a client of the coordinator, once the program is launched."""
    address = launchpad_nodes.address_of(
      self.coordinator_address, self._config.host
    )
    return rpc.Client(address, self._config.key)

  def interrupt(self) -> None:
    """Has the learner save and the run end, and waits for it.

    Launchpad calls this when its launcher gets Ctrl-C or SIGTERM.
    """
    print("Stopping: the learner saves a checkpoint.", flush=True)
    client = self.connect()
    lifeline = liveness.Lifeline(cut_seconds=_ANSWER_SECONDS)
    end = time.monotonic() + _SAVE_SECONDS
    while time.monotonic() < end:
      try:
        client.call("interrupt", "Ctrl-C or SIGTERM")
        status = client.call("status")
        lifeline.answered()
        if Phase(status["phase"]).over:
          break
      except ConnectionError as error:
        if lifeline.is_gone(error):
          break
      time.sleep(_POLL_SECONDS)


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
    os.environ[launchpad_nodes.LAUNCHER_VARIABLE] = str(os.getpid())
    with interruption.handlers_kept():
      self._manager: Any = lp.launch(
        program, launch_type=launch_type, terminal="current_terminal"
      )
    lp.unregister_stop_handler(program.interrupt)
    self.client = program.connect()
    self.host = plan.coordinator.host

  def tend(self, status: Mapping[str, Any]) -> None:
    """Does nothing: one of Launchpad's nodes watches over the processes."""

  def wait(self) -> None:
    """Waits for the processes to end, but not without end."""
    thread = threading.Thread(
      target=lambda: self._manager.wait(raise_error=False), daemon=True
    )
    thread.start()
    thread.join(_END_SECONDS)


def make_program(plan: "Plan", name: str = "agent") -> Program:
  """Makes the program: see `make_distributed_experiment`."""
  config = plan.coordinator
  program = Program(name, config)
  address = program.coordinator_address
  coordinator = _Coordinator(program, config, address)
  coordinator.allocate_address(address)
  with program.group("coordinator"):
    program.add_node(coordinator)
  processes = lp.PyNode(
    launchpad_nodes.run_processes,
    plan.run,
    (*plan.others, *plan.actors),
    str(plan.log_folder) if plan.log_folder else None,
    *(config.key, config.host, address),
  )
  with program.group("processes"):
    program.add_node(processes)
  return program
