"""Distributed runs of real processes that are disturbed all the time."""

import random
import signal
import socket
import threading
import time

import numpy as np
import psutil
import pytest

from acme_qsm.replay.listening import addresses

pytestmark = pytest.mark.acme


class BadConnection:
  """Stands between a server and its clients, and loses or delays answers.

  Attributes:
    address: where to call it.
    num_lost: answers that never arrived, their connection closed instead.
    num_delayed: answers that arrived late.
  """

  def __init__(self, server, share, seconds):
    host, port = server.rsplit(":", 1)
    self._server = (host, int(port))
    self._share = share
    self._seconds = seconds
    self._random = random.Random(0)
    self._socket = socket.create_server((addresses.LOOPBACK, 0))
    self.address = f"{addresses.LOOPBACK}:{self._socket.getsockname()[1]}"
    self.num_lost = self.num_delayed = 0
    threading.Thread(target=self._accept, daemon=True).start()

  def stop(self):
    self._socket.close()

  def _accept(self):
    while True:
      try:
        client, _ = self._socket.accept()
      except OSError:
        return
      server = socket.create_connection(self._server)
      for pair in ((client, server, False), (server, client, True)):
        threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

  def _pass_on(self, source, target, answers):
    try:
      while data := source.recv(1 << 20):
        if answers and self._random.random() < self._share:
          if self._random.random() < 0.5:
            self.num_lost += 1
            break
          self.num_delayed += 1
          time.sleep(self._seconds)
        target.sendall(data)
    except OSError:
      pass
    for end in (source, target):
      end.close()


def samples_per_insert(before, after):
  """What replay counted between two reports."""
  inserts = after["inserts"] - before["inserts"]
  assert inserts > 1_000
  return (after["samples"] - before["samples"]) / inserts


@pytest.mark.slow
def test_actors_are_killed_and_the_learner_often_does_not_answer(
  launch, point_environment, disturbed, small_config, tmp_path
):
  gaps, watching = tmp_path / "gaps", tmp_path / "watching"

  def make_environment(seed):
    last = time.monotonic()

    def note_gap(step, timestep):
      nonlocal last
      now = time.monotonic()
      if step > 1 and now - last > 4.0 and watching.exists():
        with gaps.open("a") as file:
          file.write(f"{now - last:.1f} s before step {step}\n")
      time.sleep(0.005)
      last = time.monotonic()
      return timestep

    return disturbed(point_environment(seed), note_gap, endless=False)

  run = launch(make_environment, num_actors=2)
  actors = ("actor_0", "actor_1")
  run.wait_until(lambda: run.count("learner_steps") > 100)
  warm = run.node("replay")["metrics"]
  learner = run.status()["addresses"]["learner"]
  connection = BadConnection(learner, share=0.3, seconds=5.0)
  run.call("announce", "learner", connection.address)
  watching.touch()

  # From now on they ask for parameters through it.
  before = run.status()["nodes"]
  for name in actors:
    psutil.Process(before[name]["pid"]).kill()

  def act_again():
    nodes = run.status()["nodes"]
    return all(
      nodes[name]["pid"] != before[name]["pid"]
      and nodes[name]["metrics"].get("episode_return")
      for name in actors
    )

  run.wait_until(act_again)
  lost, delayed = connection.num_lost, connection.num_delayed
  run.wait_until(
    lambda: connection.num_lost > lost and connection.num_delayed > delayed
  )

  status = run.status()
  nodes = status["nodes"]
  assert status["phase"] == "acting"
  assert {name: node["restarts"] for name, node in nodes.items()} == {
    "learner": 0,
    "replay": 0,
    **dict.fromkeys(actors, 1),
  }
  for name in actors:
    assert (
      nodes[name]["metrics"]["staleness"] < status["counts"]["learner_steps"]
    )
  # They acted on meanwhile, with the parameters that they had.
  assert not gaps.exists(), gaps.read_text()
  ratio = samples_per_insert(warm, nodes["replay"]["metrics"])
  assert ratio == pytest.approx(small_config.samples_per_insert, rel=0.02)
  connection.stop()

  # Who is asked twice does not wait for anything.
  started = psutil.Process(run.process.pid).children(recursive=True)
  run.process.send_signal(signal.SIGINT)
  time.sleep(1.5)
  run.process.send_signal(signal.SIGINT)
  assert run.wait() == 128 + signal.SIGINT, run.describe()
  run.wait_until(
    lambda: not any(map(is_running, started)), seconds=15, running=False
  )


def is_running(process):
  try:
    return process.status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(
  launch, point_environment, disturbed, tmp_path
):
  high = tmp_path / "high"

  def raise_rewards(unused_step, timestep):
    reward = np.float32(1e30) if high.exists() else timestep.reward
    return timestep._replace(reward=reward)

  run = launch(lambda seed: disturbed(point_environment(seed), raise_rewards))
  run.wait_until(lambda: run.checkpoints.latest() is not None)
  high.touch()
  assert run.wait() == 1, run.describe()
  status = run.status()
  assert status["phase"] == "failed"
  assert status["reason"].startswith("The learner stopped: "), status
  assert "critic_loss" in status["reason"]
  (state,) = run.checkpoints.latest().path.glob("learner*")
  with np.load(state) as arrays:
    assert all(np.all(np.isfinite(array)) for array in arrays.values())
