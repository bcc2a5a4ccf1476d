"""What becomes of a node whose own work fails, by a real coordinator."""

import contextlib
import threading

import launchpad
import pytest
from launchpad import address as lp_address
from launchpad import context

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.engines import launchpad_nodes

pytestmark = pytest.mark.acme

KEY = b"key"
HOST = "127.0.0.1"
IN_PROCESSES = context.LaunchType.LOCAL_MULTI_PROCESSING
IN_THREADS = context.LaunchType.LOCAL_MULTI_THREADING


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


def run_group(launch_type, group, address):
  """Runs a node where signals are nobody's, as Launchpad's threads do."""

  def run():
    launch_context = context.LaunchContext()
    launch_context.initialize(launch_type, launch_config=None)
    context.set_context(launch_context)
    launchpad_nodes.run_group(group, HOST, address)

  thread = threading.Thread(target=run)
  thread.start()
  thread.join(60)
  assert not thread.is_alive()


@pytest.mark.parametrize(
  ("launch_type", "cause"),
  [(IN_PROCESSES, "NotADirectoryError: "), (IN_THREADS, "UnpicklingError: ")],
)
def test_a_node_that_fails_is_told_of(launch_type, cause, tmp_path):
  file = tmp_path / "file"
  file.touch()
  names = ["actor_0", "actor_1"]
  group = launchpad_nodes.Group(b"no run", KEY, names, str(file / "logs"))
  coordinator = Coordinator(2, 100)
  with serving(coordinator) as address:
    run_group(launch_type, group, address)
  status = coordinator.status()
  assert status["phase"] == "failed"
  died = sorted(status["events"])
  assert len(died) == 2
  for name, event in zip(names, died, strict=True):
    assert event.startswith(f"{name} died: {cause}")
    assert event.endswith(" It is given up.")


class Failing(Coordinator):
  """Raises an error whenever it is asked how the run does."""

  num_asked = 0

  def status(self):
    self.num_asked += 1
    raise KeyError("a fault of the coordinator")


def test_an_error_of_the_coordinator_leaves_no_process_unwatched(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(launchpad_nodes, "_MAX_ACTOR_FAILURES", 1)
  group = launchpad_nodes.Group(b"no run", KEY, ["actor_0"], str(tmp_path))
  coordinator = Failing(1, 100)
  with serving(coordinator) as address:
    run_group(IN_PROCESSES, group, address)
  assert coordinator.num_asked >= 2  # By who watches, and by the process.
  (event,) = Coordinator.status(coordinator)["events"]
  assert event == "actor_0 died: exit code 1. It is given up."
