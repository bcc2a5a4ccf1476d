"""How fast the program of many processes is, and what each of them takes."""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import psutil

_ROOT = pathlib.Path(__file__).parents[2]
_START_SECONDS = 300.0
_END_SECONDS = 120.0
_POLL_SECONDS = 0.1


def measure(num_actors: int, seconds: float) -> dict[str, Any]:
  """Launches the program, lets it run for a while, and ends it.

  Args:
    num_actors: its actors.
    seconds: how long it is watched, from some time after its first learner step
      on.

  Returns:
    What there is to say of it.

  Raises:
    RuntimeError: if it does not start, or ends by itself; with its output.
  """
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / "run"
    output = pathlib.Path(folder) / "output"
    command = [
      *(sys.executable, str(_ROOT / "launchers" / "distributed.py")),
      *("--task", "cheetah:run", "--num_actors", str(num_actors)),
      *("--min_replay_size", "1000", "--num_denoising_steps", "5"),
      *("--num_steps", "100000000", "--eval_every", "100000000"),
      *("--workdir", str(workdir)),
    ]
    started = time.monotonic()
    with output.open("w") as file:
      launcher = subprocess.Popen(
        command, cwd=_ROOT, stdout=file, stderr=subprocess.STDOUT
      )
    try:
      return watch(launcher, workdir, seconds, started)
    except RuntimeError as error:
      raise RuntimeError(f"{error}\n{output.read_text()[-2000:]}") from error
    finally:
      launcher.send_signal(signal.SIGTERM)
      try:
        launcher.wait(_END_SECONDS)
      except subprocess.TimeoutExpired:
        launcher.kill()


def watch(
  launcher: subprocess.Popen,
  workdir: pathlib.Path,
  seconds: float,
  started: float,
) -> dict[str, Any]:
  """Watches a program that was launched.

  Args:
    launcher: the launcher's process.
    workdir: the run's.
    seconds: how long, from some time after its first learner step on.
    started: when it was launched, by the monotonic clock.

  Returns:
    What there is to say of it.

  Raises:
    RuntimeError: if it does not start, or ends by itself.
  """

  def status() -> Mapping[str, Any]:
    if launcher.poll() is not None:
      raise RuntimeError("The program has ended by itself.")
    try:
      return json.loads((workdir / "run_status.json").read_text())
    except FileNotFoundError:
      return {"counts": {}, "nodes": {}}

  def wait_for_learner(steps: int) -> float:
    while status()["counts"].get("learner_steps", 0) < steps:
      if time.monotonic() - started > _START_SECONDS:
        raise RuntimeError("The learner has not started to learn.")
      time.sleep(_POLL_SECONDS)
    return time.monotonic() - started

  first = wait_for_learner(1)
  wait_for_learner(500)
  before, processes = status(), _find(launcher, status()["nodes"])
  cpu = {name: _cpu_seconds(each) for name, each in processes.items()}
  start = time.monotonic()
  time.sleep(seconds)
  after = status()
  elapsed = time.monotonic() - start

  def rate(name: str) -> float:
    return (after["counts"][name] - before["counts"][name]) / elapsed

  metrics = {name: node["metrics"] for name, node in after["nodes"].items()}
  return {
    "first_update_seconds": first,
    "environment_steps_per_second": rate("actor_steps"),
    "learner_steps_per_second": rate("learner_steps"),
    "learner_wait_share": metrics["learner"]["waiting_share"],
    "staleness": max(
      (value.get("staleness", 0.0) for value in metrics.values()), default=0.0
    ),
    "processes": {
      name: {
        "cores": (_cpu_seconds(each) - cpu[name]) / elapsed,
        "memory_bytes": sum(one.memory_info().rss for one in each),
      }
      for name, each in processes.items()
    },
  }


def _find(
  launcher: subprocess.Popen, nodes: Mapping[str, Any]
) -> dict[str, list[psutil.Process]]:
  """The program's processes by name; the engine's own are one."""
  found = {
    name: [psutil.Process(node["pid"])]
    for name, node in nodes.items()
    if node["pid"]
  }
  known = {each.pid for processes in found.values() for each in processes}
  parent = psutil.Process(launcher.pid)
  found["launcher and supervisors"] = [parent] + [
    child for child in parent.children(recursive=True) if child.pid not in known
  ]
  return found


def _cpu_seconds(processes: list[psutil.Process]) -> float:
  times = [process.cpu_times() for process in processes]
  return sum(each.user + each.system for each in times)
