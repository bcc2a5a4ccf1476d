"""Faults that a distributed run of real processes survives, or ends with.

One run meets most of them, one after the other: see "What a run survives" in
`acme_qsm/distributed/README.md`.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import signal
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
from tests import small_disk as small_disks
from tests.distributed.bad_connection import BadConnection

pytestmark = [pytest.mark.acme, pytest.mark.launchpad]

ACTORS = ("actor_0", "actor_1")


def is_process(name):
  """Whether this is a run's process of that name."""
  return multiprocessing.current_process().name == name


def make_disturbance(name, number, signs):
  """What the environments of an actor do beside what they are to do.

  Args:
    name: the actor's.
    number: how many environments its process has made before.
    signs: the folder of signs.
  """
  last = None

  def disturb(step, timestep):
    nonlocal last
    if (signs / f"broken_{name}").exists():
      raise RuntimeError("out of order")
    if (signs / "slow_actors").exists():
      time.sleep(0.01)
    if name == "actor_0":
      now = time.monotonic()
      if last and now - last > 4.0 and (signs / "watching").exists():
        with (signs / "gaps").open("a") as file:
          file.write(f"{now - last:.1f} s before step {step}\n")
      last = time.monotonic()
    elif not (signs / "hung").exists() and step == 30:
      (signs / "hung").touch()
      time.sleep(3600)
    elif step == 60 and number == 0:
      raise ConnectionError("the simulator is gone")
    elif step == 60 and number == 1:
      return timestep._replace(reward=np.float32(np.nan))
    elif step == 60 and number == 2:
      return timestep._replace(observation=np.full(2, np.inf, np.float32))
    return timestep

  return disturb


class SlowBuilder(QSMBuilder):
  """Its learner looks at what it learns from, and takes its time.

  Until the actors are slow: then it is the faster one.
  """

  def __init__(self, config, signs):
    super().__init__(config)
    self._signs = signs

  def make_learner(self, *args):
    learner = super().make_learner(*args)
    step = learner.step

    def slow_step():
      if not (self._signs / "slow_actors").exists():
        time.sleep(0.005)
      step()

    learner.step = slow_step
    return learner

  def make_dataset_iterator(self, *args):
    for batch in super().make_dataset_iterator(*args):
      if not np.all(np.isfinite(batch.data)):
        (self._signs / "bad_batch").touch()
      yield batch


@pytest.fixture
def small_disk(tmp_path):
  """A folder on a file system of its own, soon full; None without root."""
  with small_disks.mounted(tmp_path / "disk", "128m") as disk:
    yield disk


def fill(path):
  """Writes a file as large as can be."""
  with path.open("wb", buffering=0) as file:
    for size in (1 << 20, 1 << 12, 1):
      with contextlib.suppress(OSError):
        while True:
          file.write(bytes(size))


def listening_on(processes):
  """Which ports of which addresses they listen on."""
  found = set()
  for process in processes:
    for connection in process.net_connections("tcp"):
      if connection.status == psutil.CONN_LISTEN:
        address = connection.laddr.ip.removeprefix("::ffff:")
        found.add((address, connection.laddr.port))
  return found


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


def learner_steps(checkpoint):
  return checkpoint.metadata["counter"]["counts"]["learner_steps"]


class Scenario:
  """A run, and what happens to it: a method per fault."""

  def __init__(self, run, config, spec, signs):
    self._run = run
    self._config = config
    self._spec = spec
    self._signs = signs

  def _kill(self, name):
    """Kills a process; returns once another has taken its place."""
    before = self._run.node(name)
    psutil.Process(before["pid"]).kill()
    self._run.wait_for_event(
      f"{name} died: killed by SIGKILL. It is started again."
    )
    self._run.wait_until(
      lambda: self._run.node(name)["restarts"] == before["restarts"] + 1
    )

  def _check_samples_per_insert(self, warm):
    """Compares what replay counted between two reports."""
    run = self._run
    run.wait_until(
      lambda: run.node("replay")["metrics"]["inserts"] > warm["inserts"] + 600
    )
    after = run.node("replay")["metrics"]
    inserts = after["inserts"] - warm["inserts"]
    ratio = (after["samples"] - warm["samples"]) / inserts
    assert ratio == pytest.approx(self._config.samples_per_insert, rel=0.02)

  def start(self):
    run = self._run
    run.wait_until(lambda: run.count("learner_steps") > 20)
    # Nobody else can reach it.
    launcher = psutil.Process(run.process.pid)
    everyone = [launcher, *launcher.children(recursive=True)]
    hosts = {
      host for host, _ in listening_on([*everyone, *run.processes().values()])
    }
    assert hosts == {listening.LOOPBACK}

  def an_environment_hangs(self):
    self._run.wait_for_event(
      "actor_1 died: its environment hung. It is started again."
    )
    assert "in disturb" in self._run.log("actor_1")
    self._run.wait_until(lambda: self._run.restarts()["actor_1"] == 1)

  def environments_raise_and_give_what_is_not_finite(self):
    run = self._run
    for text in (
      "ConnectionError: the simulator is gone",
      "NonFiniteError: reward is not finite at step 20 of the episode",
      "NonFiniteError: observation is not finite at step 20 of the episode",
    ):
      run.wait_until(lambda text=text: text in run.log("actor_1"))
    run.wait_until(
      lambda: run.node("actor_1")["metrics"].get("environment_failures") == 3
    )
    assert self._run.restarts()["actor_1"] == 1
    assert self._run.restarts()["actor_0"] == 0

  def the_learner_is_slower_than_the_actors(self):
    self._check_samples_per_insert(self._run.node("replay")["metrics"])
    # The learner has seen each transition about eight times.
    assert not (self._signs / "bad_batch").exists()

  def the_disk_is_full_and_the_actors_are_slower(self):
    run, disk = self._run, self._run.workdir.parent
    (self._signs / "slow_actors").touch()
    rows = run.workdir / "logs" / "evaluator.csv"
    run.wait_until(rows.exists)
    run.wait_until(lambda: run.latest() is not None)
    restarts, warm = self._run.restarts(), run.node("replay")["metrics"]

    ballast = disk / "ballast"
    fill(ballast)
    saved = run.latest()
    evaluation = run.node("evaluator")["metrics"]
    run.wait_until(
      lambda: run.node("learner")["metrics"].get("checkpoint_failures", 0) >= 2
    )
    # It goes on, evaluations included.
    run.goes_on(300, 300)
    run.wait_until(lambda: run.node("evaluator")["metrics"] != evaluation)
    assert run.latest().path == saved.path

    ballast.unlink()
    num_rows = len(read_csv(rows)["actor_steps"])
    run.wait_until(lambda: run.latest().step > saved.step)
    run.wait_until(lambda: len(read_csv(rows)["actor_steps"]) > num_rows)
    # Nothing is left of what Reverb wrote in vain.
    staging = reverb_server.staging_folder(run.workdir)
    run.wait_until(lambda: not any(staging.iterdir()))
    assert self._run.restarts() == restarts
    self._check_samples_per_insert(warm)

  def an_actor_is_killed_and_answers_are_lost_or_late(self):
    run, warm = self._run, self._run.node("replay")["metrics"]
    learner = run.status()["addresses"]["learner"]
    with BadConnection(learner, share=0.3, seconds=5.0) as connection:
      run.call("announce", "learner", connection.address)
      (self._signs / "watching").touch()
      restarts = self._run.restarts()
      # From now on it asks for parameters through that.
      self._kill("actor_0")
      run.wait_until(
        lambda: run.node("actor_0")["metrics"].get("episode_return")
      )
      lost, delayed = connection.num_lost, connection.num_delayed
      run.wait_until(lambda: connection.num_lost > lost)
      run.wait_until(lambda: connection.num_delayed > delayed)
      status = run.status()
      staleness = status["nodes"]["actor_0"]["metrics"]["staleness"]
      assert staleness < status["counts"]["learner_steps"]
      # It acted on meanwhile, with the parameters that it had.
      gaps = self._signs / "gaps"
      assert not gaps.exists(), gaps.read_text()
      (self._signs / "watching").unlink()
      assert self._run.restarts() == {**restarts, "actor_0": 1}
      self._check_samples_per_insert(warm)
      run.call("announce", "learner", learner)

  def the_learner_is_killed(self):
    run = self._run
    restarts = self._run.restarts()
    saved = run.latest()
    self._kill("learner")
    # The first that is heard of it: it does not begin anew.
    run.wait_until(lambda: "learner_steps" in run.node("learner")["metrics"])
    assert run.count("learner_steps") >= learner_steps(saved)
    run.goes_on(200)
    assert self._run.restarts() == {**restarts, "learner": 1}

  def _replay_comes_back(self, before):
    """Waits until actors have started again; the learner has followed."""
    run = self._run
    times = before["replay"] + 1
    for name in ACTORS:
      run.wait_for_event(
        f"{name} died: it lost replay. It is started again.", times
      )
    again = {name: before[name] + 1 for name in ("replay", *ACTORS)}
    run.wait_until(lambda: self._run.restarts() == {**before, **again})
    run.goes_on(100)

  def replay_is_killed(self):
    run, restarts = self._run, self._run.restarts()
    address = run.status()["addresses"]["replay"]
    saved = run.latest()
    self._kill("replay")
    # The first that is heard of it: nearly a transition per step saved.
    run.wait_until(lambda: "size" in run.node("replay")["metrics"])
    size = run.node("replay")["metrics"]["size"]
    assert size > 0.8 * saved.metadata["actor_steps"]
    self._replay_comes_back(restarts)
    assert run.status()["addresses"]["replay"] == address

  def another_run_takes_replays_port(self):
    run, restarts = self._run, self._run.restarts()
    address = run.status()["addresses"]["replay"]
    process = psutil.Process(run.node("replay")["pid"])
    ports = {port for _, port in listening_on([process])}
    process.kill()
    # Servers like those of another run of the same task.
    with listening.listening_on():
      servers = [take_port(port, self._spec, self._config) for port in ports]
    try:
      run.wait_until(lambda: run.status()["addresses"].get("replay") != address)
      self._replay_comes_back(restarts)
      for server in servers:
        info = server.localhost_client().server_info()[reverb_tables.TABLE]
        assert info.current_size == 0
        assert info.rate_limiter_info.insert_stats.completed == 0
        assert info.rate_limiter_info.sample_stats.completed == 0
    finally:
      for server in servers:
        server.stop()

  def an_environment_always_fails(self):
    run, restarts = self._run, self._run.restarts()
    (self._signs / "broken_actor_1").touch()
    run.wait_for_event(
      "actor_1 died: its environment always failed. It is given up."
    )
    assert run.node("actor_1")["state"] == "given up"
    assert "RuntimeError: out of order" in run.log("actor_1")
    run.goes_on(100)
    assert self._run.restarts() == restarts

  def all_environments_always_fail(self):
    run = self._run
    (self._signs / "broken_actor_0").touch()
    assert run.wait() == 1
    status = run.status()
    assert status["phase"] == "failed"
    reason = "all actors were given up; actor_0 the last: "
    assert status["reason"].startswith(reason)
    assert status["reason"] in run.output.read_text()
    assert run.latest() is not None
    run.wait_until(lambda: not run.processes(), running=False)


@pytest.mark.slow
def test_what_a_run_survives(
  launch, point_environment, disturbed, small_config, small_disk, tmp_path
):
  signs = tmp_path / "signs"
  signs.mkdir()
  numbers = itertools.count()

  def make_environment(seed):
    environment = point_environment(seed)
    for name in ACTORS:
      if is_process(name):
        disturb = make_disturbance(name, next(numbers), signs)
        return disturbed(environment, disturb, endless=False)
    return environment

  run = launch(
    make_environment,
    num_actors=len(ACTORS),
    num_eval_episodes=1,
    hang_seconds=5.0,
    make_builder=lambda config: SlowBuilder(config, signs),
    directory=(small_disk or tmp_path) / "run",
  )
  spec = specs.make_environment_spec(point_environment(0))
  scenario = Scenario(run, small_config, spec, signs)
  for happens in (
    scenario.start,
    scenario.an_environment_hangs,
    scenario.environments_raise_and_give_what_is_not_finite,
    scenario.the_learner_is_slower_than_the_actors,
    *([scenario.the_disk_is_full_and_the_actors_are_slower] * bool(small_disk)),
    scenario.an_actor_is_killed_and_answers_are_lost_or_late,
    scenario.the_learner_is_killed,
    scenario.replay_is_killed,
    scenario.another_run_takes_replays_port,
    scenario.an_environment_always_fails,
    scenario.all_environments_always_fail,
  ):
    with run.fault(happens.__name__.replace("_", " ")):
      happens()
  if small_disk is None:
    pytest.skip("All is well, but only root can fill a disk to see.")


class _SlowToSave(QSMBuilder):
  """Its learner takes longer to save than anybody waits."""

  def make_learner(self, *args):
    learner = super().make_learner(*args)
    learner.save = lambda: time.sleep(3600)
    return learner


@pytest.mark.slow
def test_a_second_ctrl_c_ends_all_at_once(launch, point_environment):
  run = launch(point_environment, make_builder=_SlowToSave, minutes=60.0)
  run.wait_until(lambda: run.count("learner_steps") > 20)
  started = psutil.Process(run.process.pid).children(recursive=True)
  started += run.processes().values()
  run.process.send_signal(signal.SIGINT)
  stopping = "Stopping: the learner saves a checkpoint."
  run.wait_until(lambda: stopping in run.output.read_text())
  run.wait_until(lambda: run.node("learner")["state"] == "saving")
  # What comes within a second is the same signal, passed on by another.
  time.sleep(1.0)
  run.process.send_signal(signal.SIGINT)
  assert run.wait(15) == 128 + signal.SIGINT, run.describe()
  assert "Stopped at once" in run.output.read_text()
  run.wait_until(
    lambda: not any(map(is_running, started)), seconds=15, running=False
  )


def is_running(process):
  try:
    return process.status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


def delete_done(folder):
  (folder / "DONE").unlink()


def truncate_chunks(folder):
  (chunks,) = folder.glob("chunks*")
  os.truncate(chunks, chunks.stat().st_size // 2)


def test_damaged_replay_content_is_not_resumed_from(
  make_experiment, caplog, capfd
):
  def run(num_steps):
    experiment = make_experiment(num_steps)
    config = dataclasses.replace(experiment.checkpointing, max_to_keep=3)
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
  for damage in (delete_done, truncate_chunks):
    damage(newest.path / "replay")
    damaged = newest.path
    capfd.readouterr()
    newest = run(newest.step + 20)
    # As it was told.
    assert f"Skipping the broken checkpoint {damaged}" in caplog.text
    output = capfd.readouterr().out.replace("\n", " ")
    assert "40 environment steps" in output
    assert "0 items in replay" not in output
