"""Faults that a distributed run of real processes survives, or ends with."""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import numpy as np
import psutil
import pytest
import reverb
from acme import specs

from acme_qsm import QSMBuilder
from acme_qsm.experiments import run_experiment
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.replay import reverb_server
from acme_qsm.replay import reverb_tables
from acme_qsm.replay.listening import bind as listening

pytestmark = pytest.mark.acme


def is_process(name):
  """Whether this is a run's process of that name."""
  return sys.argv[2:3] == [name]


def fail(unused_step, unused_timestep):
  raise RuntimeError("out of order")


def make_unreliable(seed):
  """Disturbs an environment in one of five ways after some steps."""
  fault = seed % 5

  def disturb(step, timestep):
    if step < 60:
      return timestep
    if fault == 0:
      raise ConnectionError("the simulator is gone")
    if fault == 1:
      return timestep._replace(reward=np.float32(np.nan))
    if fault == 2:
      return timestep._replace(reward=None)
    if fault == 3:
      return timestep._replace(observation=np.zeros(3, np.float32))
    return timestep._replace(observation=np.full(2, np.inf, np.float32))

  return disturb


def make_hanging(marker):
  """Hangs for ever, but only the first of all environments."""

  def disturb(step, timestep):
    if step == 30 and not marker.exists():
      marker.touch()
      time.sleep(3600)
    return timestep

  return disturb


def listening_addresses(processes):
  found = set()
  for process in processes:
    for connection in process.net_connections("tcp"):
      if connection.status == psutil.CONN_LISTEN:
        found.add(connection.laddr.ip.removeprefix("::ffff:"))
  return found


def samples_per_insert(before, after):
  """What replay counted between two reports."""
  inserts = after["inserts"] - before["inserts"]
  assert inserts > 500
  return (after["samples"] - before["samples"]) / inserts


class SlowBuilder(QSMBuilder):
  """Its learner takes its time, and looks at what it learns from."""

  def __init__(self, config, bad_batch):
    super().__init__(config)
    self._bad_batch = bad_batch

  def make_learner(self, *args):
    learner = super().make_learner(*args)
    step = learner.step

    def slow_step():
      time.sleep(0.005)
      step()

    learner.step = slow_step
    return learner

  def make_dataset_iterator(self, *args):
    for batch in super().make_dataset_iterator(*args):
      if not np.all(np.isfinite(batch.data)):
        self._bad_batch.touch()
      yield batch


def test_environments_that_fail(
  launch, point_environment, disturbed, small_config, tmp_path
):
  marker, bad_batch = tmp_path / "hung", tmp_path / "bad_batch"

  def make_environment(seed):
    environment = point_environment(seed)
    if is_process("actor_0"):
      return disturbed(environment, fail)
    if is_process("actor_1"):
      return disturbed(environment, make_unreliable(seed))
    if is_process("actor_2"):
      return disturbed(environment, make_hanging(marker))
    return environment

  run = launch(
    make_environment,
    num_actors=3,
    num_steps=1_500,
    hang_seconds=5.0,
    make_builder=lambda config: SlowBuilder(config, bad_batch),
  )
  run.wait_until(lambda: run.count("learner_steps") > 20)
  warm = run.node("replay")["metrics"]
  # Nobody else can reach it.
  everyone = psutil.Process(run.process.pid).children(recursive=True)
  assert listening_addresses([psutil.Process(run.process.pid), *everyone]) == {
    listening.LOOPBACK
  }
  assert run.wait() == 0, run.describe()

  status = run.status()
  assert status["phase"] == "finished"
  nodes = status["nodes"]
  ratio = samples_per_insert(warm, nodes["replay"]["metrics"])
  assert ratio == pytest.approx(small_config.samples_per_insert, rel=0.02)

  # One that always fails.
  assert nodes["actor_0"]["state"] == "given up"
  assert nodes["actor_0"]["restarts"] == 0
  assert (
    "actor_0 died: its environment always failed. It is given up."
    in status["events"]
  )
  assert "RuntimeError: out of order" in run.log("actor_0")
  # One that fails now and then.
  assert nodes["actor_1"]["restarts"] == 0
  assert nodes["actor_1"]["metrics"]["environment_failures"] >= 9
  log = run.log("actor_1")
  assert "ConnectionError: the simulator is gone" in log
  assert "NonFiniteError: reward is not finite at step 60" in log
  assert "NonFiniteError: observation is not finite at step 60" in log
  assert "InvalidValueError: reward is None at step 60" in log
  assert "InvalidValueError: observation has shape (3,) at step 60" in log
  # The learner has seen each transition about eight times.
  assert not bad_batch.exists()
  # One that hangs.
  assert nodes["actor_2"]["restarts"] == 1
  assert (
    "actor_2 died: its environment hung. It is started again."
    in status["events"]
  )
  assert "in disturb" in run.log("actor_2")


def test_all_actors_given_up_is_the_end(launch, point_environment, disturbed):
  def make_environment(seed):
    return disturbed(point_environment(seed), fail)

  run = launch(make_environment)
  assert run.wait() == 1, run.describe()
  status = run.status()
  assert status["phase"] == "failed"
  assert status["reason"].startswith("all actors were given up; actor_0")
  assert status["reason"] in run.describe()


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a file system of its own, which is soon full."""
  path = tmp_path / "disk"
  path.mkdir()
  mounted = subprocess.run(
    ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", path],
    capture_output=True,
    text=True,
  )
  if mounted.returncode:
    pytest.skip(f"A file system of its own needs root: {mounted.stderr}")
  yield path
  subprocess.run(["umount", "--lazy", path], check=True)


def fill(path):
  """Writes a file as large as can be."""
  with path.open("wb", buffering=0) as file:
    for size in (1 << 20, 1 << 12, 1):
      with contextlib.suppress(OSError):
        while True:
          file.write(bytes(size))


def test_a_full_disk(
  launch, point_environment, disturbed, small_config, small_disk
):
  def slow_down(unused_step, timestep):
    time.sleep(0.005)
    return timestep

  def make_environment(seed):
    environment = point_environment(seed)
    if is_process("actor_0"):
      return disturbed(environment, slow_down)
    return environment

  run = launch(
    make_environment,
    num_eval_episodes=1,
    directory=small_disk / "run",
  )
  rows = run.workdir / "logs" / "evaluator.csv"
  run.wait_until(rows.exists)
  run.wait_until(lambda: run.checkpoints.latest() is not None)
  warm = run.node("replay")["metrics"]

  ballast = small_disk / "ballast"
  fill(ballast)
  saved = run.checkpoints.latest()
  before = run.status()["counts"]
  evaluation = run.node("evaluator")["metrics"]
  run.wait_until(
    lambda: run.node("learner")["metrics"].get("checkpoint_failures", 0) >= 2
  )
  # It goes on, evaluations included.
  for name in ("actor_steps", "learner_steps"):
    run.wait_until(lambda name=name: run.count(name) > before[name] + 600)
  run.wait_until(lambda: run.node("evaluator")["metrics"] != evaluation)
  assert run.checkpoints.latest().path == saved.path

  ballast.unlink()
  num_rows = len(read_csv(rows)["actor_steps"])
  run.wait_until(lambda: run.checkpoints.latest().step > saved.step)
  run.wait_until(lambda: len(read_csv(rows)["actor_steps"]) > num_rows)
  status = run.status()
  restarts = {node["restarts"] for node in status["nodes"].values()}
  assert restarts == {0}, run.describe()
  ratio = samples_per_insert(warm, status["nodes"]["replay"]["metrics"])
  assert ratio == pytest.approx(small_config.samples_per_insert, rel=0.02)
  run.process.send_signal(signal.SIGTERM)
  assert run.wait() == 128 + signal.SIGTERM, run.describe()
  # Nothing is left of what Reverb wrote in vain.
  assert not any(reverb_server.staging_folder(run.workdir).iterdir())


def take_port(port, spec, config, seconds=60):
  """Starts a server on a port as soon as who had it has let it go."""
  end = time.monotonic() + seconds
  while True:
    try:
      tables = QSMBuilder(config).make_replay_tables(spec)
      return reverb.Server(tables, port=port)
    except ValueError:
      assert time.monotonic() < end
      time.sleep(0.05)


@pytest.mark.slow
def test_another_run_takes_replays_port(
  launch, point_environment, small_config
):
  num_steps = 3_000
  run = launch(point_environment, num_steps=num_steps)
  run.wait_until(lambda: run.count("learner_steps") > 100)
  run.wait_until(lambda: run.checkpoints.latest() is not None)
  process = psutil.Process(run.node("replay")["pid"])
  ports = {
    connection.laddr.port
    for connection in process.net_connections("tcp")
    if connection.status == psutil.CONN_LISTEN
  }
  process.kill()
  # Servers like those of another run of the same task.
  spec = specs.make_environment_spec(point_environment(0))
  with listening.listening_on():
    servers = [take_port(port, spec, small_config) for port in ports]
  try:
    assert run.wait() == 0, run.describe()
    for server in servers:
      info = server.localhost_client().server_info()[reverb_tables.TABLE]
      assert info.current_size == 0
      assert info.rate_limiter_info.insert_stats.completed == 0
  finally:
    for server in servers:
      server.stop()
  status = run.status()
  assert status["counts"]["actor_steps"] == num_steps
  assert status["nodes"]["replay"]["restarts"] == 1
  assert status["nodes"]["learner"]["restarts"] == 0
  assert (
    "actor_0 died: it lost replay. It is started again." in status["events"]
  )


def delete_done(folder):
  (folder / "DONE").unlink()


def truncate_chunks(folder):
  (chunks,) = folder.glob("chunks*")
  os.truncate(chunks, chunks.stat().st_size // 2)


@pytest.mark.parametrize("damage", [delete_done, truncate_chunks])
def test_damaged_replay_content_is_not_resumed_from(
  damage, make_experiment, caplog, capfd
):
  def run(num_steps):
    experiment = make_experiment(num_steps)
    config = dataclasses.replace(experiment.checkpointing, max_to_keep=2)
    experiment = dataclasses.replace(experiment, checkpointing=config)
    run_experiment(
      experiment,
      eval_every=num_steps,
      num_eval_episodes=0,
      replay="reverb",
    )
    folder = pathlib.Path(config.directory) / "checkpoints"
    return checkpointing.Checkpointer(folder).latest()

  run(40)
  newest = run(60)
  damage(newest.path / "replay")
  capfd.readouterr()
  assert run(80).step == 80
  # As it was told.
  assert f"Skipping the broken checkpoint {newest.path}" in caplog.text
  output = capfd.readouterr().out.replace("\n", " ")
  assert "40 environment steps" in output
  assert "0 items in replay" not in output
