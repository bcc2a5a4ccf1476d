"""A process's connection to replay, by real servers."""

import contextlib
import threading
import time

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import pytest
import reverb

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.connections import ReplayConnection
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.experiments.config import EvaluationSchedule
from acme_qsm.replay.reverb_server import ReplayServer

pytestmark = pytest.mark.acme

KEY = b"key"
HOST = "127.0.0.1"
RUN = Run(
  experiment=None,
  environment_spec=None,
  schedule=EvaluationSchedule(1, 0, 1),
  key=KEY,
  host=HOST,
  path=None,
  run_id="ours",
  hang_seconds=1.0,
)


def wait_until(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.01)


@pytest.fixture
def stack():
  with contextlib.ExitStack() as stack:
    yield stack


@pytest.fixture
def coordinator():
  return Coordinator(1, 100)


@pytest.fixture
def link(stack, coordinator):
  names = ("announce", "report")
  server = rpc.Server(
    {name: getattr(coordinator, name) for name in names}, KEY, HOST
  )
  stack.callback(server.stop)
  link = Link("actor_0", rpc.Client(server.address, KEY), end_process=None)
  stack.callback(link.close)
  return link


def start_replay(stack, run_id):
  server = ReplayServer([reverb.Table.queue("queue", 10)], run_id=run_id)
  stack.callback(server.stop)
  return server


def start_ties(stack):
  server = rpc.Server({}, KEY, HOST)
  stack.callback(server.stop)
  return server


def announce(coordinator, ties, replay):
  coordinator.announce("replay_tie", ties.address)
  coordinator.announce("replay", replay.address)


def num_ties():
  return sum(thread.name == "tie" for thread in threading.enumerate())


def test_an_attempt_that_fails_leaves_nothing_that_ends_the_process(
  stack, coordinator, link, caplog
):
  first, second = start_ties(stack), start_ties(stack)
  # Another run's server has taken replay's port.
  announce(coordinator, first, start_replay(stack, "another"))
  made, lost = [], threading.Event()
  thread = threading.Thread(
    target=lambda: made.append(ReplayConnection(RUN, link, on_loss=lost.set))
  )
  thread.start()
  wait_until(lambda: caplog.text.count("belongs to another run") >= 2)
  announce(coordinator, second, start_replay(stack, "ours"))
  thread.join(30)
  wait_until(lambda: num_ties() == 1)
  first.stop()
  assert not lost.wait(0.1)
  assert not made[0].lost
  second.stop()
  assert lost.wait(30)
  assert made[0].lost
