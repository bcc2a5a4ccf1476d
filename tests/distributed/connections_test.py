"""A process's connection to replay, by real servers."""

import contextlib
import threading

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import numpy as np
import pytest
import reverb

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.nodes import connections
from acme_qsm.replay.reverb_server import ReplayServer

pytestmark = pytest.mark.acme

KEY = b"key"
HOST = "127.0.0.1"


@pytest.fixture
def stack():
  with contextlib.ExitStack() as stack:
    yield stack


def start_replay(stack, run_id):
  server = ReplayServer([reverb.Table.queue("queue", 10)], run_id=run_id)
  stack.callback(server.stop)
  return server


def start_ties(stack):
  server = rpc.Server({}, KEY, HOST)
  stack.callback(server.stop)
  return server


def num_ties():
  return sum(thread.name == "tie" for thread in threading.enumerate())


def test_an_attempt_that_fails_leaves_nothing_that_ends_the_process(stack):
  first, second = start_ties(stack), start_ties(stack)
  # Another run's server has taken replay's port.
  another, ours = start_replay(stack, "another"), start_replay(stack, "ours")
  announced = {"replay": another.address, "replay_tie": first.address}
  lost = threading.Event()

  def connect():
    return connections.ReplayConnection(
      announced.get, KEY, "ours", on_loss=lost.set
    )

  for _ in range(2):
    with pytest.raises(ConnectionError, match="belongs to another run"):
      connect()
  announced.update(replay=ours.address, replay_tie=second.address)
  replay = connect()
  assert num_ties() == 1
  first.stop()
  assert not lost.wait(0.1)
  assert not replay.lost
  # Where nobody sees that its machine is gone, another takes its place.
  announced["replay"] = another.address
  assert replay.lost
  announced["replay"] = ours.address
  second.stop()
  assert lost.wait(30)
  assert replay.lost
  with pytest.raises(ConnectionError, match="Replay is gone"):
    _ = replay.client


def test_what_replay_could_give_at_once_is_counted(stack):
  ratio = reverb.rate_limiters.SampleToInsertRatio(2.0, 3, 4.0)
  table = reverb.Table(
    "t", reverb.selectors.Uniform(), reverb.selectors.Fifo(), 10, ratio
  )
  server = ReplayServer([table], run_id="ours")
  stack.callback(server.stop)
  announced = {
    "replay": server.address,
    "replay_tie": start_ties(stack).address,
  }
  replay = connections.ReplayConnection(announced.get, KEY, "ours")
  client = replay.client
  for number, held in ((1, 0.0), (2, 0.0), (3, 2 * 3 - 2), (4, 2 * 4 - 2)):
    client.insert([np.zeros(1)], {"t": 1.0})
    assert replay.count("t") == (number, 0, held)
  assert len(list(client.sample("t", 5))) == 5
  assert replay.count("t") == (4, 5, 1.0)
