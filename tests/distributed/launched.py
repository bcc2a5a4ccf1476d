"""A run of many processes that a test starts, and then does things to."""

import contextlib
import inspect
import json
import os
import pathlib
import pickle
import subprocess
import sys
import time
from typing import Any

import psutil

from acme_qsm.distributed.coordination import rpc
from acme_qsm.experiments.records import checkpointing

ROOT = pathlib.Path(__file__).parents[2]
# What launchers/distributed.py does, for any experiment.
LAUNCHER = """
import os, pickle, sys

from absl import flags
from acme_qsm.distributed.processes import supervision
from acme_qsm.distributed.engines.launchpad_engine import LaunchpadRun
from launchers import distributed

supervision.die_with_parent()
flags.FLAGS(sys.argv[:1])
plan = pickle.load(open(sys.argv[1], "rb"))
steps = plan.coordinator.max_actor_steps


def work(interrupted):
  run = LaunchpadRun(plan, "local_mp")
  with open(sys.argv[2] + ".new", "w") as file:
    file.write(run.client.address)
  os.replace(file.name, sys.argv[2])
  arguments = distributed.Arguments(config=None, num_steps=steps)
  return distributed.watch(run, arguments, interrupted)


code = distributed.interruptibly(work)
sys.stdout.flush()
os._exit(code)
"""


class WaitedInVainError(AssertionError):
  """Says what was waited for, and how the run does."""


class Launched:
  """A launcher that was started, and all that it started.

  Attributes:
    workdir: the run's.
    checkpoints: its checkpoints.
    output: the file with the launcher's output.
    process: the launcher's.
  """

  def __init__(self, command, workdir, folder, environment=None):
    self.workdir = workdir
    self.checkpoints = checkpointing.Checkpointer(workdir / "checkpoints")
    self.output = folder / f"{workdir.name}.output"
    with self.output.open("a") as output:
      self.process = subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        # These networks need none, and the compiler is what takes time.
        env={
          **os.environ,
          "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
          **(environment or {}),
        },
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def status(self) -> Any:
    try:
      return json.loads((self.workdir / "run_status.json").read_text())
    except FileNotFoundError:
      return {"phase": "acting", "counts": {}, "nodes": {}}

  def latest(self):
    """The newest checkpoint, which may be replaced while it is looked at."""
    for _ in range(10):
      with contextlib.suppress(OSError, checkpointing.CheckpointError):
        return self.checkpoints.latest()
    return self.checkpoints.latest()

  def count(self, name="actor_steps"):
    return self.status()["counts"].get(name, 0)

  def node(self, name):
    return self.status()["nodes"][name]

  def restarts(self):
    """How often each process was started again."""
    nodes = self.status()["nodes"]
    return {name: node["restarts"] for name, node in nodes.items()}

  def log(self, name):
    return (self.workdir / "logs" / f"{name}.log").read_text()

  def processes(self):
    """Those of the run, the launcher not included, by name."""
    found = {}
    logs = self.workdir / "logs"
    for process in psutil.process_iter(["cmdline"]):
      log = _log_of(process)
      # It is forked from Launchpad's; its children have its output, too.
      if log.parent == logs and "--data_file" in (
        process.info["cmdline"] or []
      ):
        found[log.stem] = process
    return found

  def wait_until(self, condition, seconds=500, *, running=True):
    end = time.monotonic() + seconds
    while not condition():
      ended = running and self.process.poll() is not None
      if time.monotonic() > end or (ended and not condition()):
        why = "the run has ended" if ended else f"{seconds} seconds have passed"
        raise WaitedInVainError(
          f"{why}, but this did not come:\n{inspect.getsource(condition)}"
          f"{self.describe()}"
        )
      time.sleep(0.1)

  def wait_for_event(self, event, times=1):
    """Waits until something has happened to a process so many times."""
    self.wait_until(lambda: self.status()["events"].count(event) >= times)
    assert self.status()["events"].count(event) == times, self.describe()

  def goes_on(self, steps=50, learnt=50):
    """Waits until so many more steps of both kinds are made."""
    # A new learner does not say at once where it goes on from.
    self.wait_until(lambda: self.count("learner_steps") > 0)
    acted, learned = self.count(), self.count("learner_steps")
    self.wait_until(lambda: self.count() > acted + steps)
    self.wait_until(lambda: self.count("learner_steps") > learned + learnt)

  @contextlib.contextmanager
  def fault(self, name):
    """Whatever fails within is said to be of this fault."""
    start, ended = time.monotonic(), "not survived"
    try:
      yield
      ended = "survived"
    except WaitedInVainError as error:
      raise AssertionError(f"{name}: {error}") from error
    except Exception as error:
      text = f"{name}: {error}\n{self.describe()}"
      raise AssertionError(text) from error
    finally:
      print(f"{time.monotonic() - start:6.1f} s  {name}: {ended}")

  def wait(self, seconds=500):
    """Waits for the launcher's end; returns its exit code."""
    try:
      return self.process.wait(seconds)
    except subprocess.TimeoutExpired:
      raise WaitedInVainError(
        f"the launcher has not ended in {seconds} s:\n{self.describe()}"
      ) from None

  def describe(self):
    logs = [self.output, *sorted((self.workdir / "logs").glob("*.log"))]
    texts = [f"== {path}\n{path.read_text()[-3000:]}" for path in logs]
    return "\n".join([*texts, json.dumps(self.status(), indent=1)])

  def end(self):
    """Whatever happened, leaves nothing behind."""
    self.process.kill()
    self.process.wait()
    for process in self.processes().values():
      process.kill()


def _log_of(process):
  try:
    return pathlib.Path(os.readlink(f"/proc/{process.pid}/fd/1"))
  except OSError:
    return pathlib.Path()


class LaunchedPlan(Launched):
  """A run that was started from its plan."""

  def __init__(self, plan, folder):
    workdir = pathlib.Path(plan.coordinator.checkpointing.directory)
    self._key = plan.key
    self._client = None
    self._last_status: Any = {"phase": "acting", "counts": {}, "nodes": {}}
    plan_file = folder / f"{workdir.name}.plan"
    plan_file.write_bytes(pickle.dumps(plan))
    self._address = plan_file.with_suffix(".address")
    # That of a run that this one goes on with.
    self._address.unlink(missing_ok=True)
    super().__init__(
      [sys.executable, "-c", LAUNCHER, plan_file, self._address],
      workdir,
      folder,
    )

  def call(self, *args):
    """Calls the coordinator, once there is one."""
    if self._client is None:
      if not self._address.exists():
        raise ConnectionError("There is no coordinator yet.")
      self._client = rpc.Client(self._address.read_text(), self._key)
    return self._client.call(*args)

  def status(self):
    """From the coordinator itself, since its file needs the disk."""
    if self.process.poll() is not None:
      return super().status()
    with contextlib.suppress(ConnectionError):
      self._last_status = self.call("status")
    return self._last_status
