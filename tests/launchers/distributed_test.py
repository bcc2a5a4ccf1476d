"""The distributed launcher: real processes, and what happens to them."""

import contextlib
import os
import signal
import time

import numpy as np
import psutil
import pytest

from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv
from launchers import distributed
from launchers.benchmarks import program

pytestmark = pytest.mark.acme


def test_a_run_survives_its_processes(launch, tmp_path):
  num_steps = 4_000
  run = launch(
    tmp_path / "run", "--num_actors", "2", "--num_steps", str(num_steps)
  )
  checkpoints = checkpointing.Checkpointer(run.workdir / "checkpoints")
  run.wait_until(lambda: run.count() > 500 and checkpoints.latest() is not None)
  before = run.processes()
  assert set(before) == {
    *("replay", "learner", "evaluator"),
    *("actor_0", "actor_1"),
  }
  for name in ("actor_1", "learner", "replay"):
    steps = run.count()
    before[name].kill()
    run.wait_until(
      lambda name=name: run.status()["nodes"][name]["restarts"] == 1
    )
    # And it goes on.
    run.wait_until(lambda steps=steps: run.count() > steps + 200)
  assert run.wait() == 0, run.describe()

  status = run.status()
  assert status["phase"] == "finished"
  # Steps that the killed actor had made but not yet told of are not counted.
  assert status["counts"]["actor_steps"] == num_steps
  events = [event for event in status["events"] if event.startswith("actor_1")]
  assert events[0] == "actor_1 died: killed by SIGKILL. It is started again."
  assert events[1] == "actor_1 was started again."
  assert f"{num_steps:,} environment steps: evaluation" in status["events"][-1]
  assert f"Done: {num_steps:,} environment steps" in run.output.read_text()
  evaluations = read_csv(run.workdir / "logs" / "evaluator.csv")
  assert evaluations["actor_steps"][-1] == num_steps
  assert np.all(np.diff(evaluations["actor_steps"]) > 0)
  latest = checkpoints.latest()
  assert latest is not None
  assert latest.metadata["actor_steps"] == num_steps
  assert (run.workdir / "learning_curve.png").stat().st_size > 1000
  assert run.processes() == {}


def test_an_interrupted_run_goes_on_in_one_process(launch, tmp_path):
  run = launch(tmp_path / "run", "--num_actors", "1", "--num_steps", "100000")
  measured = program.watch(run.process, run.workdir, 3.0, time.monotonic())
  assert measured["environment_steps_per_second"] > 0
  assert measured["learner_steps_per_second"] > 0
  assert 0 <= measured["learner_wait_share"] <= 1
  assert set(measured["processes"]) == {
    *("replay", "learner", "actor_0", "evaluator"),
    "launcher and supervisors",
  }
  for taken in measured["processes"].values():
    assert taken["memory_bytes"] > 2**20
  # As a terminal that is closed does it: to all at once.
  os.killpg(run.process.pid, signal.SIGHUP)
  assert run.wait(120) == 128 + signal.SIGHUP, run.describe()
  assert run.status()["phase"] == "interrupted"
  assert run.status()["reason"] == "SIGHUP"
  assert run.processes() == {}
  checkpoints = checkpointing.Checkpointer(run.workdir / "checkpoints")
  saved = checkpoints.latest()
  assert saved is not None
  steps = saved.metadata["actor_steps"]
  assert saved.metadata["counter"]["counts"]["learner_steps"] > 100

  local = launch(run.workdir, "--num_steps", str(steps + 50), launcher="local")
  assert local.wait() == 0, local.describe()
  latest = checkpoints.latest()
  assert latest is not None
  assert latest.metadata["actor_steps"] == steps + 50
  assert (
    latest.metadata["counter"]["counts"]["learner_steps"]
    >= saved.metadata["counter"]["counts"]["learner_steps"]
  )


def test_a_run_in_one_process_goes_on_in_many(launch, tmp_path):
  local = launch(tmp_path / "run", "--num_steps", "600", launcher="local")
  assert local.wait() == 0, local.describe()
  checkpoints = checkpointing.Checkpointer(local.workdir / "checkpoints")
  saved = checkpoints.latest()
  assert saved is not None
  # One learner step per transition, from the 200th on.
  before = saved.metadata["counter"]["counts"]["learner_steps"]
  assert before == 600 - 200 + 1

  run = launch(local.workdir, "--num_actors", "1", "--num_steps", "900")
  assert run.wait() == 0, run.describe()
  assert run.status()["counts"]["actor_steps"] == 900
  # What the embedded replay held is in Reverb's.
  assert 890 <= run.status()["nodes"]["replay"]["metrics"]["size"] <= 902
  latest = checkpoints.latest()
  assert latest is not None
  # As many as if it had been one run, but for what was on its way at the end;
  # in many processes, sampling may be a tenth of 200 inserts ahead.
  learnt = latest.metadata["counter"]["counts"]["learner_steps"] - before
  assert 280 <= learnt <= 302 + 20


@pytest.mark.slow
def test_a_run_on_the_loopback_of_ipv6(launch, tmp_path):
  run = launch(
    tmp_path / "run",
    *("--host", "::1", "--num_actors", "1", "--num_steps", "400"),
  )
  assert run.wait() == 0, run.describe()
  status = run.status()
  assert status["counts"]["actor_steps"] == 400
  assert status["counts"]["learner_steps"] > 0
  assert set(status["addresses"]) == {"learner", "replay", "replay_tie"}
  for address in status["addresses"].values():
    assert address.startswith("[::1]:")


@pytest.mark.parametrize("engine", ["launchpad", "ray"])
def test_nothing_outlives_a_launcher_that_was_killed(engine, launch, tmp_path):
  run = launch(
    tmp_path / "run",
    *("--engine", engine, "--num_actors", "1", "--num_steps", "100000"),
  )
  run.wait_until(lambda: run.count() > 10)
  started = psutil.Process(run.process.pid).children(recursive=True)
  started += [
    psutil.Process(node["pid"]) for node in run.status()["nodes"].values()
  ]
  run.process.kill()
  run.process.wait()

  def left():
    found = []
    for process in started:
      with contextlib.suppress(psutil.NoSuchProcess):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
          found.append(process)
    return found

  run.wait_until(lambda: not left(), seconds=15, running=False)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--num_actors", "0"], "num_actors must be at least 1, got 0"),
    (["--task", "cartpole:swingdown"], "cartpole:swingup"),
    (["--agent", "sdca"], "Unknown agent 'sdca'; did you mean sdac?"),
    (
      ["--critic_head", "categorical", "--action_repeat", "2"],
      "QSMConfig.max_value must be at least 200 for critic_head='categorical'",
    ),
    (["--target_kl", "1"], "is a setting of sdac, idem and dpmd, not of qsm"),
    (["--host", "nowhere"], "IP address of this machine, not 'nowhere'"),
    (["--host", "192.0.2.99"], "192.0.2.99, which is no address of this"),
    (
      ["--engine", "ray", "--ray_address", "127.0.0.1:1"],
      "There is no Ray cluster at '127.0.0.1:1'",
    ),
  ],
)
def test_wrong_arguments(arguments, message, small_arguments, tmp_path, capfd):
  command = ["--workdir", str(tmp_path / "run"), *small_arguments(), *arguments]
  assert distributed.main(command) == 2
  output = capfd.readouterr()
  assert message in output.err
  assert "Launched" not in output.out
