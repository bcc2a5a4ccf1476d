"""The distributed launcher: real processes, and what happens to them."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from acme_qsm.experiments import checkpointing
from acme_qsm.experiments.loggers import read_csv
from launchers import distributed

ROOT = pathlib.Path(__file__).parents[2]
SMALL = [
  *("--task", "cartpole:balance"),
  *("--policy_hidden_sizes", "16", "--critic_hidden_sizes", "16"),
  *("--batch_size", "16", "--samples_per_insert", "16"),
  *("--min_replay_size", "200", "--num_denoising_steps", "2"),
  *("--num_action_candidates", "1", "--num_evaluation_candidates", "1"),
  *("--num_eval_episodes", "1", "--eval_every", "2000"),
  *("--variable_update_period", "20", "--checkpoint_minutes", "0.05"),
]


class Launched:
  """A launcher that was started, and all that it started."""

  def __init__(self, workdir, *arguments, launcher="distributed"):
    self.workdir = workdir
    self.output = workdir.parent / f"{workdir.name}.output"
    with self.output.open("a") as output:
      self.process = subprocess.Popen(
        [
          sys.executable,
          f"launchers/{launcher}.py",
          *("--workdir", str(workdir)),
          *SMALL,
          *arguments,
        ],
        cwd=ROOT,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def status(self):
    try:
      return json.loads((self.workdir / "run_status.json").read_text())
    except FileNotFoundError:
      return {"phase": "acting", "counts": {}, "nodes": {}}

  def count(self, name="actor_steps"):
    return self.status()["counts"].get(name, 0)

  def processes(self):
    """Those of the run, the launcher not included, by name."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
      command = process.info["cmdline"] or []
      if "acme_qsm.experiments.process" in command and str(
        self.workdir
      ) in self._log_of(process):
        found[command[-2]] = process
    return found

  def _log_of(self, process):
    try:
      return os.readlink(f"/proc/{process.pid}/fd/1")
    except OSError:
      return ""

  def wait_until(self, condition, seconds=600):
    end = time.monotonic() + seconds
    while not condition():
      assert time.monotonic() < end, self.describe()
      time.sleep(0.1)

  def describe(self):
    logs = [self.output, *sorted((self.workdir / "logs").glob("*.log"))]
    return "\n".join(
      f"== {path}\n{path.read_text()[-2000:]}" for path in logs
    ) + json.dumps(self.status(), indent=1)

  def wait(self, seconds=600):
    try:
      return self.process.wait(seconds)
    except subprocess.TimeoutExpired:
      raise AssertionError(self.describe()) from None

  def end(self):
    """Whatever happened, leaves nothing behind."""
    self.process.kill()
    self.process.wait()
    for process in self.processes().values():
      process.kill()


@pytest.fixture
def launch():
  launched = []

  def start(*args, **kwargs):
    launched.append(Launched(*args, **kwargs))
    return launched[-1]

  yield start
  for one in launched:
    one.end()


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
  assert [event.split()[0] for event in status["events"][:2]] == ["actor_1"] * 2
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
  run.wait_until(lambda: run.count("learner_steps") > 100)
  run.process.send_signal(signal.SIGTERM)
  assert run.wait(120) == 128 + signal.SIGTERM, run.describe()
  assert run.status()["phase"] == "interrupted"
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


def test_nothing_outlives_a_launcher_that_was_killed(launch, tmp_path):
  run = launch(tmp_path / "run", "--num_actors", "1", "--num_steps", "100000")
  run.wait_until(lambda: run.count() > 10)
  session = run.process.pid
  run.process.kill()
  run.process.wait()

  def left():
    found = []
    for process in psutil.process_iter():
      with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if (
          process.status() != psutil.STATUS_ZOMBIE
          and os.getsid(process.pid) == session
        ):
          found.append(process)
    return found

  run.wait_until(lambda: not left(), seconds=15)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--num_actors", "0"], "num_actors must be at least 1, got 0"),
    (["--task", "cartpole:swingdown"], "cartpole:swingup"),
    (["--host", "nowhere"], "IP address of this machine, not 'nowhere'"),
  ],
)
def test_wrong_arguments(arguments, message, tmp_path, capfd):
  command = ["--workdir", str(tmp_path / "run"), *SMALL, *arguments]
  assert distributed.main(command) == 2
  assert message in capfd.readouterr().err
