"""What the tests of launchers share: real runs in processes of their own."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

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

  def __init__(self, workdir, *arguments, launcher="distributed", within=()):
    self.workdir = workdir
    self.output = workdir.parent / f"{workdir.name}.output"
    with self.output.open("a") as output:
      self.process = subprocess.Popen(
        [
          *within,
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

  def kill(self, name):
    """Kills a process of the run, by its name there."""
    os.kill(self.status()["nodes"][name]["pid"], signal.SIGKILL)

  def wait_until(self, condition, seconds=600, *, running=True):
    end = time.monotonic() + seconds
    while not condition():
      assert time.monotonic() < end, self.describe()
      if running and self.process.poll() is not None:
        assert condition(), self.describe()
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


@pytest.fixture
def small_arguments():
  """Arguments of a run that takes no time to speak of."""
  return SMALL
