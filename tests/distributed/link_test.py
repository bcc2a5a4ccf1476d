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
from tests.distributed.waiting import wait_until

KEY = b"key"
HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
  monkeypatch.setattr(link_lib, "_PERIOD_SECONDS", 0.05)
  monkeypatch.setattr(link_lib, "_GONE_SECONDS", 0.2)
  monkeypatch.setattr(link_lib, "_END_SECONDS", 0.2)
  monkeypatch.setattr(link_lib, "_EVICTED_SECONDS", 0.2)


class Failing(Coordinator):
  """Raises an error at reports, while it is told to."""

  fails = False

  def report(self, report):
    if self.fails:
      raise KeyError("a fault of the coordinator")
    return super().report(report)


@pytest.fixture
def coordinator():
  return Failing(1, 100)


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
  """Stands for the end of the process: remembers the first exit code."""

  def __init__(self):
    self.code = None
    self.event = threading.Event()

  def __call__(self, code):
    if self.code is None:
      self.code = code
    self.event.set()

  def wait(self):
    assert self.event.wait(30)
    return self.code


@contextlib.contextmanager
def linked(coordinator):
  """A link to a coordinator that is served, and the end of its process."""
  with serving(coordinator) as server:
    ended = Ended()
    client = rpc.Client(server.address, KEY, timeout=1.0)
    link = link_lib.Link("actor_0", client, end_process=ended)
    yield link, ended
    link.close()


def state(coordinator):
  return coordinator.status()["nodes"]["actor_0"]["state"]


def test_totals_arrive_and_orders_come_back(coordinator):
  with linked(coordinator) as (link, _):
    link.state = "acting"
    link.totals = {"actor_steps": 30.0}
    wait_until(lambda: link.count("actor_steps") == 30)
    assert state(coordinator) == "acting"
    coordinator.interrupt("enough")
    wait_until(lambda: link.ending)
    assert not link.over
    coordinator.done("learner")
    wait_until(lambda: link.over)
    assert link.orders.phase is Phase.INTERRUPTED


def test_services_are_waited_for(coordinator):
  with linked(coordinator) as (link, _):
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
    # In vain: by one that waits no longer, and where the run is over.
    with pytest.raises(link_lib.RunIsOverError):
      link.reach("learner", connect, gives_up=lambda: True)
    coordinator.fail("no more")
    with pytest.raises(link_lib.RunIsOverError):
      link.reach("learner", connect)


@pytest.mark.parametrize("has_file", [True, False])
def test_an_environment_that_hangs_ends_the_process(
  coordinator, has_file, monkeypatch, capfd
):
  with linked(coordinator) as (link, ended):
    for _ in range(3):
      with link.deadline.within(0.2):
        time.sleep(0.1)
    assert ended.code is None
    if not has_file:
      # As in a notebook: nothing can be dumped there.
      monkeypatch.setattr("sys.stderr", io.StringIO())
    with link.deadline.within(0.2):
      assert ended.wait() == ExitCode.HUNG
  if has_file:
    error = capfd.readouterr().err
    assert "The environment has not answered" in error
    # And where it hung.
    assert "link_test.py" in error


def test_a_coordinator_that_is_gone_ends_the_process(coordinator):
  with linked(coordinator) as (link, ended):
    with serving(coordinator) as another:
      # Its process dies: no more answers on the connection that there was.
      link._coordinator.close()
      link._coordinator.address = another.address
    assert ended.wait() == ExitCode.CUT_OFF
    assert link.over


def test_a_coordinator_of_errors_alone_ends_the_process(
  coordinator, monkeypatch
):
  monkeypatch.setattr(link_lib, "_CUT_SECONDS", 0.2)
  with linked(coordinator) as (link, ended):
    coordinator.fails = True
    assert ended.wait() == ExitCode.CUT_OFF
    assert link.over


def test_a_short_cut_is_survived(coordinator, monkeypatch):
  monkeypatch.setattr(link_lib, "_GONE_SECONDS", 1000.0)
  ended = Ended()
  with serving(coordinator) as server:
    client = rpc.Client(server.address, KEY, timeout=1.0)
    link = link_lib.Link("actor_0", client, end_process=ended)
    client.close()
  link.totals = {"actor_steps": 7.0}
  time.sleep(0.2)  # Some reports that do not arrive.
  with serving(coordinator, server.port):
    wait_until(lambda: coordinator.status()["counts"] == {"actor_steps": 7.0})
    assert ended.code is None
    link.close()


def test_errors_of_a_report_are_outlived_and_told(coordinator, caplog):
  with linked(coordinator) as (link, ended):
    coordinator.fails = True
    wait_until(lambda: "a fault of the coordinator" in caplog.text)
    coordinator.fails = False
    link.metrics = {"lock": threading.Lock()}
    wait_until(lambda: "cannot pickle" in caplog.text)
    link.metrics = {}
    link.totals = {"actor_steps": 7.0}
    wait_until(lambda: coordinator.status()["counts"] == {"actor_steps": 7.0})
    assert ended.code is None


def test_who_loses_replay_ends_whatever_the_coordinator_says(coordinator):
  with linked(coordinator) as (link, ended):
    coordinator.fails = True
    link.lose_replay()
    assert ended.code == ExitCode.REPLAY_MOVED


def test_who_depends_on_replay_ends_where_that_moves(coordinator):
  with linked(coordinator) as (link, ended):
    link.depend_on_replay("127.0.0.1:5")
    coordinator.announce("replay", "127.0.0.1:5")
    wait_until(lambda: link.address_of("replay") is not None)
    assert ended.code is None
    coordinator.announce("replay", "127.0.0.1:6")
    assert ended.wait() == ExitCode.REPLAY_MOVED


def test_what_is_noted_is_shown_or_done_without(coordinator):
  with linked(coordinator) as (link, _):
    link.note("It cannot be told.")  # There is no such function there.
    link._coordinator.close()
    link.note("Nor now.")
  assert coordinator.status()["events"] == []


@pytest.mark.parametrize("whole_run", [False, True])
def test_who_is_told_to_end_says_so_unless_all_are(coordinator, whole_run):
  with linked(coordinator) as (link, _):
    link.evict()
    assert link.evicted
    if whole_run:
      coordinator.interrupt("all are told to")
      wait_until(lambda: not link.evicted)
    assert link.ending
    assert not link.over
    link.state = "done"
  assert state(coordinator) == ("done" if whole_run else "evicted")
  assert coordinator.status()["phase"] == "acting"


@pytest.mark.parametrize("over", [False, True])
def test_a_process_that_does_not_end_when_it_is_to_is_ended(coordinator, over):
  with linked(coordinator) as (link, ended):
    if over:
      coordinator.fail("over")
    else:
      link.evict()
    assert ended.wait() == (ExitCode.DONE if over else ExitCode.EVICTED)
