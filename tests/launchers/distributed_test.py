"""The distributed launcher: real processes, and what happens to them."""

import contextlib
import os
import signal

import numpy as np
import psutil
import pytest

from acme_qsm.experiments.records.loggers import read_csv
from launchers import distributed
from launchers import local
from launchers.benchmarks import launched

pytestmark = [pytest.mark.acme, pytest.mark.launchpad]


def learner_steps(checkpoint):
  return checkpoint.metadata["counter"]["counts"]["learner_steps"]


def find_node(run, label):
  """Launchpad's process of a node, such as "coordinator/0"."""
  for process in psutil.Process(run.process.pid).children(recursive=True):
    command = process.cmdline()
    wrapper = process.parent().cmdline()
    if "--data_file" in command and "sed" not in command and label in wrapper:
      return process
  raise AssertionError(f"There is no {label}.")


@pytest.mark.slow
def test_sigterm_to_one_process_is_for_that_one_and_to_the_launcher_for_all(
  launch, tmp_path
):
  run = launch(
    tmp_path / "run",
    *("--num_actors", "1", "--num_steps", "1000000"),
  )
  with run.fault("none"):
    measured, processes = launched.watch(run.process, run.workdir, 3.0)
    assert measured["environment_steps_per_second"] > 0
    assert measured["learner_steps_per_second"] > 0
    assert 0 <= measured["learner_wait_share"] <= 1
    assert set(processes) == {
      *("replay", "learner", "actor_0", "evaluator"),
      "launcher and supervisors",
    }
    for taken in processes.values():
      assert taken["memory_mb"] > 1
    run.wait_until(lambda: run.node("evaluator")["metrics"])

  for name in ("actor_0", "evaluator", "learner", "replay"):
    with run.fault(f"SIGTERM to {name}"):
      learnt, before = run.count("learner_steps"), run.restarts()
      psutil.Process(run.node(name)["pid"]).terminate()
      run.wait_for_event(
        f"{name} died: it was told to end. It is started again."
      )
      if name == "learner":
        # It has saved first.
        assert learner_steps(run.latest()) >= learnt
      # The others go on; but actors cannot go to another replay.
      again = {name, "actor_0"} if name == "replay" else {name}
      after = {node: n + (node in again) for node, n in before.items()}
      run.wait_until(lambda after=after: run.restarts() == after)
      run.goes_on()
  assert run.status()["phase"] == "acting"

  with run.fault("SIGTERM to who only watches over a process"):
    watching = find_node(run, "processes/0")
    watching.terminate()
    run.goes_on()
    assert watching.is_running()
    assert watching.status() != psutil.STATUS_ZOMBIE

  with run.fault("a terminal that is closed, which tells all at once"):
    steps = run.count()
    os.killpg(run.process.pid, signal.SIGHUP)
    assert run.wait(120) == 128 + signal.SIGHUP
    assert run.status()["phase"] == "interrupted"
    assert run.status()["reason"] == "SIGHUP"
    assert run.processes() == {}
    assert run.latest().metadata["actor_steps"] >= steps
    assert learner_steps(run.latest()) > 100


@pytest.mark.slow
def test_a_run_goes_on_from_one_process_to_many_and_back(
  launch, small_arguments, tmp_path
):
  path = tmp_path / "run"

  def run_locally(num_steps):
    arguments = ["--workdir", str(path), "--num_steps", str(num_steps)]
    assert local.main([*small_arguments(), *arguments]) == 0

  run_locally(600)
  run = launch(path, *("--num_actors", "1", "--num_steps", "900"))
  # One learner step per transition, from the 200th on.
  before = learner_steps(run.latest())
  assert before == 600 - 200 + 1
  assert run.wait() == 0, run.describe()
  assert run.status()["phase"] == "finished"
  acted = int(run.status()["counts"]["actor_steps"])
  # What the actor does until it hears of the end is limited by the learner.
  assert 900 <= acted < 2_000
  # What the embedded replay held is in Reverb's.
  size = run.status()["nodes"]["replay"]["metrics"]["size"]
  assert acted - 10 <= size <= acted + 2
  assert run.latest().metadata["actor_steps"] == acted
  # As many as if it had been one run, but for what was on its way at the end;
  # in many processes, sampling may be a tenth of 200 inserts ahead.
  learnt = learner_steps(run.latest())
  assert acted - 620 <= learnt - before <= acted - 598 + 20

  run_locally(acted + 50)
  assert run.latest().metadata["actor_steps"] == acted + 50
  # Of those that it was ahead by it makes none again.
  assert abs(learner_steps(run.latest()) - (acted + 50 - 200 + 1)) <= 20


@pytest.mark.slow
def test_a_run_without_its_coordinator_saves_and_goes_on_to_its_last_step(
  launch, tmp_path
):
  run = launch(
    tmp_path / "run",
    *("--num_actors", "1", "--num_steps", "1000000"),
  )
  with run.fault("SIGTERM to the coordinator, without which there is no run"):
    run.wait_until(lambda: run.count("learner_steps") > 20)
    steps = run.count()
    find_node(run, "coordinator/0").terminate()
    assert run.wait() == 128 + signal.SIGTERM
    status = run.status()
    assert status["phase"] == "interrupted"
    assert status["reason"] == "the coordinator got SIGTERM"
    saved = run.latest().metadata["actor_steps"]
    assert saved >= steps

  # On IPv6's loopback, for a change.
  num_steps = saved + 3_000
  run = launch(
    tmp_path / "run",
    *("--num_actors", "2", "--num_steps", str(num_steps), "--host", "::1"),
  )
  with run.fault("an actor is killed"):
    # Until then the file tells of the run before.
    run.wait_until(lambda: run.status()["phase"] == "acting")
    run.wait_until(lambda: run.count() > saved + 200)
    run.wait_until(lambda: run.node("actor_1")["state"] == "acting")
    addresses = run.status()["addresses"]
    assert set(addresses) == {"learner", "replay", "replay_tie"}
    assert all(address.startswith("[::1]:") for address in addresses.values())
    run.processes()["actor_1"].kill()
    assert run.wait() == 0

  status = run.status()
  assert status["phase"] == "finished"
  # Steps that the killed actor had made but not yet told of are not counted.
  acted = int(status["counts"]["actor_steps"])
  assert num_steps <= acted < num_steps + 2_000
  assert f"Goes on from a checkpoint: {saved:,}" in status["events"][0]
  events = [event for event in status["events"] if event.startswith("actor_1")]
  assert events == [
    "actor_1 died: killed by SIGKILL. It is started again.",
    "actor_1 was started again.",
  ]
  assert f"{acted:,} environment steps: evaluation" in status["events"][-1]
  assert f"Done: {acted:,} environment steps" in run.output.read_text()
  evaluations = read_csv(run.workdir / "logs" / "evaluator.csv")
  assert evaluations["actor_steps"][-1] == acted
  assert np.all(np.diff(evaluations["actor_steps"]) > 0)
  assert run.latest().metadata["actor_steps"] == acted
  assert (run.workdir / "learning_curve.png").stat().st_size > 1000
  assert run.processes() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
  "engine", ["launchpad", pytest.param("ray", marks=pytest.mark.ray)]
)
def test_nothing_outlives_a_launcher_that_was_killed(engine, launch, tmp_path):
  run = launch(
    tmp_path / "run",
    *("--engine", engine, "--num_actors", "1", "--num_steps", "100000"),
    *("--num_eval_episodes", "0"),
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
    pytest.param(
      ["--engine", "ray", "--ray_address", "127.0.0.1:1"],
      "There is no Ray cluster at '127.0.0.1:1'",
      marks=pytest.mark.ray,
    ),
  ],
)
def test_wrong_arguments(arguments, message, small_arguments, tmp_path, capfd):
  command = ["--workdir", str(tmp_path / "run"), *small_arguments(), *arguments]
  assert distributed.main(command) == 2
  output = capfd.readouterr()
  assert message in output.err
  assert "Launched" not in output.out
