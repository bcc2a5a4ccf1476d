"""What becomes of a node whose own work fails, by a real coordinator."""

import contextlib
import threading

import launchpad
import pytest
from launchpad import address as lp_address
from launchpad import context

from acme_qsm.distributed.coordination import coordinator as coordinator_lib
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.coordination.messages import Report
from acme_qsm.distributed.engines import launchpad_nodes
from acme_qsm.distributed.processes import process

pytestmark = pytest.mark.acme

KEY = b"key"
HOST = "127.0.0.1"
IN_PROCESSES = context.LaunchType.LOCAL_MULTI_PROCESSING
IN_THREADS = context.LaunchType.LOCAL_MULTI_THREADING


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(coordinator_lib, "_MAX_FAILURES", 2)
  # They do not come to their work.
  monkeypatch.setattr(process, "load", lambda: None)


class BuiltAddress(lp_address.AbstractAddressBuilder):
  """An address that is known."""

  def __init__(self, address):
    self._address = address

  def build(self):
    return self._address


@contextlib.contextmanager
def serving(coordinator):
  """Serves a coordinator; yields its address in Launchpad's terms."""
  functions = {
    name: getattr(coordinator, name) for name in ("status", "lost", "report")
  }
  server = rpc.Server(functions, KEY, HOST)
  address = launchpad.Address("coordinator")
  address.bind(BuiltAddress(server.address))
  try:
    yield address
  finally:
    server.stop()


def run_processes(launch_type, names, log_folder, address):
  """Runs a node where signals are nobody's, as Launchpad's threads do."""

  def run():
    launch_context = context.LaunchContext()
    launch_context.initialize(launch_type, launch_config=None)
    context.set_context(launch_context)
    launchpad_nodes.run_processes(
      b"no run", names, str(log_folder), KEY, HOST, address
    )

  thread = threading.Thread(target=run)
  thread.start()
  thread.join(60)
  assert not thread.is_alive()


@pytest.mark.parametrize(
  ("launch_type", "cause"),
  [(IN_PROCESSES, "exit code 1"), (IN_THREADS, "UnpicklingError: ")],
)
def test_processes_that_fail_are_told_of(launch_type, cause, tmp_path):
  names = ["actor_0", "actor_1"]
  coordinator = Coordinator(2, 100)
  with serving(coordinator) as address:
    run_processes(launch_type, names, tmp_path, address)
  status = coordinator.status()
  assert status["phase"] == "failed"
  ends = [event for event in status["events"] if event.endswith("given up.")]
  assert len(ends) == 2
  for name, event in zip(names, sorted(ends), strict=True):
    assert event.startswith(f"{name} died: {cause}")


class Failing(Coordinator):
  """Raises an error whenever it is asked how the run does."""

  num_asked = 0

  def status(self):
    self.num_asked += 1
    raise KeyError("a fault of the coordinator")


def test_an_error_of_the_coordinator_leaves_no_process_unwatched(tmp_path):
  coordinator = Failing(1, 100)
  with serving(coordinator) as address:
    run_processes(IN_PROCESSES, ["actor_0"], tmp_path, address)
  # By who watches, and by the process each time.
  assert coordinator.num_asked >= 2
  events = Coordinator.status(coordinator)["events"]
  assert events == [
    "actor_0 died: exit code 1. It is started again.",
    "actor_0 died: exit code 1. It is given up.",
  ]


def test_a_process_that_is_not_heard_of_is_hung():
  now = 0.0
  coordinator = Coordinator(1, 100, clock=lambda: now)
  coordinator.report(Report("actor_0", "1", "acting"))
  now = 61.0
  with serving(coordinator) as address:
    observer = launchpad_nodes._Observer(rpc.Client(address.resolve(), KEY))
    assert not observer.is_hung("actor_0", 61.0)  # Nothing is known yet.
    assert not observer.is_over()
    assert observer.is_hung("actor_0", 61.0)
    # One that was just started has had no time to report.
    assert not observer.is_hung("actor_0", 59.0)
    assert not observer.is_hung("learner", 61.0)
