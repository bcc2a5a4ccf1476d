"""A process's link to a real coordinator, and what it does when cut off."""

import contextlib
import io
import threading
import time

import pytest

from acme_qsm.distributed.coordination import link as link_lib
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.processes.supervision import ExitCode

KEY = b"key"
HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
  monkeypatch.setattr(link_lib, "_PERIOD_SECONDS", 0.05)
  monkeypatch.setattr(link_lib, "_GONE_SECONDS", 0.2)
  monkeypatch.setattr(link_lib, "_END_SECONDS", 0.2)


@contextlib.contextmanager
def serving(coordinator, port=0):
  names = ("announce", "report", "done", "interrupt", "fail")
  server = rpc.Server(
    {name: getattr(coordinator, name) for name in names}, KEY, HOST, port
  )
  try:
    yield server
  finally:
    server.stop()


class Ended:
  """Stands for the end of the process: remembers the exit codes."""

  def __init__(self):
    self.codes = []
    self.event = threading.Event()

  def __call__(self, code):
    self.codes.append(code)
    self.event.set()


def make_link(server, name="actor_0", **kwargs):
  client = rpc.Client(f"{HOST}:{server.port}", KEY, timeout=1.0)
  return link_lib.Link(name, client, **{"end_process": Ended(), **kwargs})


def wait_until(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


def test_totals_arrive_and_orders_come_back():
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server)
    link.state = "acting"
    link.totals = {"actor_steps": 30.0}
    wait_until(lambda: link.count("actor_steps") == 30)
    assert coordinator.status()["nodes"]["actor_0"]["state"] == "acting"
    coordinator.interrupt("enough")
    wait_until(lambda: link.ending)
    assert not link.over
    coordinator.done("learner")
    wait_until(lambda: link.over)
    assert link.orders.phase is Phase.INTERRUPTED
    link.close()


def test_services_are_waited_for():
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server)
    found, refusals = [], [ConnectionError("nobody is there yet")]

    def connect():
      if refusals:
        raise refusals.pop()
      return link.address_of("replay")

    thread = threading.Thread(
      target=lambda: found.append(link.reach("replay", connect))
    )
    thread.start()
    wait_until(lambda: link.state == "waiting for replay")
    coordinator.announce("replay", "127.0.0.1:5")
    thread.join(30)
    assert found == ["127.0.0.1:5"]
    assert link.state != "waiting for replay"
    # Of one that must not wait, and of a run that is over.
    with pytest.raises(link_lib.RunIsOverError):
      link.reach("learner", connect, gives_up=lambda: True)
    coordinator.fail("no more")
    with pytest.raises(link_lib.RunIsOverError):
      link.reach("learner", connect)
    link.close()


def test_an_environment_that_hangs_ends_the_process(capfd):
  ended = Ended()
  with serving(Coordinator(1, 100)) as server:
    link = make_link(server, end_process=ended)
    for _ in range(3):
      with link.deadline.within(0.2):
        time.sleep(0.1)
    assert not ended.codes
    with link.deadline.within(0.2):
      assert ended.event.wait(30)
    assert ended.codes[0] == ExitCode.HUNG
    link.close()
  error = capfd.readouterr().err
  assert "The environment has not answered" in error
  # And where it hung.
  assert "link_test.py" in error


def test_an_environment_that_hangs_ends_the_process_that_cannot_say_where(
  monkeypatch,
):
  ended = Ended()
  with serving(Coordinator(1, 100)) as server:
    link = make_link(server, end_process=ended)
    # As in a notebook: no file, so that nothing can be dumped there.
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with link.deadline.within(0.1):
      assert ended.event.wait(30)
    assert ended.codes[0] == ExitCode.HUNG
    link.close()


def test_a_coordinator_that_is_gone_ends_the_process():
  ended = Ended()
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server, end_process=ended)
    # Its process dies: no more answers on the connection that there was.
    link._coordinator.close()
  assert ended.event.wait(30)
  assert ended.codes == [ExitCode.CUT_OFF]
  assert link.over


def test_a_short_cut_is_survived(monkeypatch):
  monkeypatch.setattr(link_lib, "_GONE_SECONDS", 1000.0)
  ended = Ended()
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server, end_process=ended)
    link._coordinator.close()
  link.totals = {"actor_steps": 7.0}
  time.sleep(0.2)  # Some reports that do not arrive.
  with serving(coordinator, server.port):
    wait_until(lambda: coordinator.status()["counts"] == {"actor_steps": 7.0})
    assert not ended.codes
    link.close()


class Failing(Coordinator):
  """Raises an error at reports, while it is told to."""

  fails = False

  def report(self, report):
    if self.fails:
      raise KeyError("a fault of the coordinator")
    return super().report(report)


def test_an_error_of_the_coordinator_is_outlived_and_told(caplog):
  ended = Ended()
  coordinator = Failing(1, 100)
  with serving(coordinator) as server:
    link = make_link(server, end_process=ended)
    coordinator.fails = True
    wait_until(lambda: "a fault of the coordinator" in caplog.text)
    coordinator.fails = False
    link.totals = {"actor_steps": 7.0}
    wait_until(lambda: coordinator.status()["counts"] == {"actor_steps": 7.0})
    assert not ended.codes
    link.close()


def test_what_cannot_be_reported_is_told_and_ends_no_thread(caplog):
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server)
    link.metrics = {"lock": threading.Lock()}
    wait_until(lambda: "cannot pickle" in caplog.text)
    link.metrics = {"value": 1.0}
    wait_until(
      lambda: (
        coordinator.status()["nodes"]["actor_0"]["metrics"] == {"value": 1.0}
      )
    )
    link.close()


def test_a_coordinator_of_errors_alone_ends_the_process(monkeypatch):
  monkeypatch.setattr(link_lib, "_CUT_SECONDS", 0.2)
  ended = Ended()
  coordinator = Failing(1, 100)
  with serving(coordinator) as server:
    link = make_link(server, end_process=ended)
    coordinator.fails = True
    assert ended.event.wait(30)
    assert ended.codes == [ExitCode.CUT_OFF]
    assert link.over
    link.close()


def test_who_loses_replay_ends_whatever_the_coordinator_says():
  ended = Ended()
  coordinator = Failing(1, 100)
  with serving(coordinator) as server:
    link = make_link(server, end_process=ended)
    coordinator.fails = True
    link.lose_replay()
    assert ended.codes == [ExitCode.REPLAY_MOVED]
    link.close()


def test_who_is_told_to_end_says_so():
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server)
    link.evict()
    assert link.ending
    assert link.evicted
    assert not link.over
    link.state = "done"
    link.close()
  assert coordinator.status()["nodes"]["actor_0"]["state"] == "evicted"
  assert coordinator.status()["phase"] == "acting"


def test_who_is_told_to_end_with_the_whole_run_has_its_part_in_that():
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server)
    link.evict()
    coordinator.interrupt("all are told to")
    wait_until(lambda: not link.evicted)
    assert link.ending
    link.state = "done"
    link.close()
  assert coordinator.status()["nodes"]["actor_0"]["state"] == "done"


def test_who_is_told_to_end_and_does_not_is_ended(monkeypatch):
  monkeypatch.setattr(link_lib, "_EVICTED_SECONDS", 0.2)
  ended = Ended()
  with serving(Coordinator(1, 100)) as server:
    link = make_link(server, end_process=ended)
    link.evict()
    assert ended.event.wait(30)
    assert ended.codes[0] == ExitCode.EVICTED
    link.close()


def test_a_process_that_does_not_end_with_its_run_is_ended():
  ended = Ended()
  coordinator = Coordinator(1, 100)
  with serving(coordinator) as server:
    link = make_link(server, end_process=ended)
    coordinator.fail("over")
    assert ended.event.wait(30)
    assert ended.codes[0] == 0
    link.close()
