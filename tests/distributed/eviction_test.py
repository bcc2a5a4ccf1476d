"""SIGTERM to single processes of a run, which goes on."""

import signal

import psutil
import pytest

pytestmark = pytest.mark.acme


def find_node(run, label):
  """Launchpad's process of a node, such as "coordinator/0"."""
  for process in psutil.Process(run.process.pid).children(recursive=True):
    command = process.cmdline()
    wrapper = process.parent().cmdline()
    if "--data_file" in command and "sed" not in command and label in wrapper:
      return process
  raise AssertionError(f"There is no {label}.")


def learner_steps(checkpoint):
  return checkpoint.metadata["counter"]["counts"]["learner_steps"]


@pytest.mark.slow
def test_sigterm_to_one_process_is_for_that_one(launch, point_environment):
  run = launch(point_environment, num_actors=2, num_eval_episodes=1)
  run.wait_until(lambda: run.count("learner_steps") > 50)
  run.wait_until(lambda: run.node("evaluator")["metrics"])
  for name in ("actor_0", "evaluator", "learner", "replay"):
    learnt = run.count("learner_steps")
    psutil.Process(run.node(name)["pid"]).terminate()
    run.wait_until(lambda name=name: run.node(name)["restarts"] == 1)
    if name == "learner":
      # It has saved first.
      latest = run.checkpoints.latest()
      assert latest is not None
      assert learner_steps(latest) >= learnt
    # It goes on.
    steps, learnt = run.count(), run.count("learner_steps")
    run.wait_until(lambda steps=steps: run.count() > steps + 50)
    run.wait_until(
      lambda learnt=learnt: run.count("learner_steps") > learnt + 50
    )
    event = f"{name} died: it was told to end. It is started again."
    assert event in run.status()["events"], run.describe()
  assert run.status()["phase"] == "acting"
  assert run.node("actor_1")["pid"] in [
    process.pid for process in run.processes().values()
  ]

  # Who only watches over a process stays with it.
  watching = psutil.Process(run.node("learner")["pid"]).parent()
  watching.terminate()
  # Without the coordinator there is no run; it ends with a checkpoint.
  steps = run.count()
  find_node(run, "coordinator/0").terminate()
  assert run.wait() == 128 + signal.SIGTERM, run.describe()
  status = run.status()
  assert status["phase"] == "interrupted"
  assert status["reason"] == "the coordinator got SIGTERM"
  assert run.checkpoints.latest().metadata["actor_steps"] >= steps
  assert status["nodes"]["learner"]["restarts"] == 1
