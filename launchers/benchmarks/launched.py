"""How fast launchers start, and what the program of many processes takes."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import psutil

from launchers.benchmarks import report
from launchers.benchmarks import timing

_ROOT = pathlib.Path(__file__).parents[2]
_START_SECONDS = 300.0
_END_SECONDS = 120.0
_POLL_SECONDS = 0.02
_TASKS = {"cartpole": "cartpole:swingup", "cheetah": "cheetah:run"}
_NUM_ACTORS = (1, 2, 4)
_SMALL = ("--min_replay_size", "1000", "--num_denoising_steps", "5")

COMMANDS: Mapping[str, list[str]] = {
  "help": ["--help"],
  "unknown flag": ["--learning_rat", "1"],
  "unknown task": ["--task", "cartpole:swingup2"],
  "value out of range": ["--num_denoising_steps", "0"],
}
"""What a launcher answers at once, by what it is."""


def measure_start(effort: timing.Effort) -> Iterator[report.Row]:
  """Measures the launchers' answers, and the time to their first update."""
  repeats = 1 if effort.quick else 3
  for launcher in ("local",) if effort.quick else ("local", "distributed"):
    try:
      answers = measure_answers(launcher, repeats)
    except ModuleNotFoundError as error:
      report.leave_out(f"{launcher}.py", error)
      continue
    yield "answers", {"seconds to answer": launcher, **answers}
  for name in ("cheetah",) if effort.quick else _TASKS:
    found = measure_first_update(_TASKS[name], repeats)
    yield "first_update", {"first update": name, **found}


def measure_answers(launcher: str, repeats: int) -> dict[str, float]:
  """The least seconds in which a launcher answers each of `COMMANDS`."""
  return {
    name: min(_answer(launcher, arguments) for _ in range(repeats))
    for name, arguments in COMMANDS.items()
  }


def _answer(launcher: str, arguments: list[str]) -> float:
  started = time.perf_counter()
  done = subprocess.run(
    [sys.executable, f"launchers/{launcher}.py", *arguments],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  elapsed = time.perf_counter() - started
  if done.returncode != (0 if "--help" in arguments else 2):
    if "ModuleNotFoundError" in done.stderr:
      raise ModuleNotFoundError(done.stderr.strip().splitlines()[-1])
    raise RuntimeError(f"{launcher} {arguments}:\n{done.stderr}")
  return elapsed


def measure_first_update(task: str, repeats: int) -> dict[str, float]:
  """The least seconds from a command to the end of the first update.

  Each time with an empty compilation cache, and then with what is left there.
  """
  cold, warm = [], []
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as cache:
      cold.append(_first_update(task, cache))
      warm.append(_first_update(task, cache))
  return {"cold_seconds": min(cold), "warm_seconds": min(warm)}


def _first_update(task: str, cache: str) -> float:
  flags = ("--task", task, *_SMALL, "--num_eval_episodes", "0")
  with _launched("local", *flags, cache=cache) as (process, workdir):
    log = workdir / "logs" / "learner.csv"
    # A row below the table's head.
    elapsed = _wait(process, lambda: _read(log).count("\n") > 1)
    # SIGTERM would make it save first.
    process.kill()
    return elapsed


@contextlib.contextmanager
def _launched(
  launcher: str, *flags: str, cache: str | None = None
) -> Iterator[tuple[subprocess.Popen, pathlib.Path]]:
  """A launcher's process and its work directory, until this context ends.

  To a RuntimeError of the context it adds what the launcher has printed.
  """
  environment = dict(os.environ)
  if cache is not None:
    environment["XDG_CACHE_HOME"] = cache
    # JAX would use this cache instead.
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  with tempfile.TemporaryDirectory() as folder:
    workdir, output = (
      pathlib.Path(folder, "run"),
      pathlib.Path(folder, "output"),
    )
    with output.open("w") as file:
      process = subprocess.Popen(
        [
          *(sys.executable, f"launchers/{launcher}.py", *flags),
          *("--workdir", str(workdir)),
        ],
        cwd=_ROOT,
        env=environment,
        stdout=file,
        stderr=subprocess.STDOUT,
      )
    try:
      yield process, workdir
    except RuntimeError as error:
      raise RuntimeError(f"{error}\n{_read(output)[-2000:]}") from error
    finally:
      process.send_signal(signal.SIGTERM)
      try:
        process.wait(_END_SECONDS)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen, is_so: Callable[[], bool]) -> float:
  """Waits until something is so; returns the seconds since a process began."""
  started = psutil.Process(process.pid).create_time()
  while not is_so():
    elapsed = time.time() - started
    if process.poll() is not None or elapsed > _START_SECONDS:
      raise RuntimeError("The run has ended, or not started to learn.")
    time.sleep(_POLL_SECONDS)
  return time.time() - started


def _read(path: pathlib.Path) -> str:
  return path.read_text() if path.exists() else ""


def measure_program(effort: timing.Effort) -> Iterator[report.Row]:
  """Measures the program of many processes, by its actors."""
  del effort
  for num_actors in _NUM_ACTORS:
    with _launched(
      *("distributed", "--task", "cheetah:run", *_SMALL),
      *("--num_actors", str(num_actors)),
      *("--num_steps", "100000000", "--eval_every", "100000000"),
    ) as (process, workdir):
      rates, processes = watch(process, workdir, 40.0)
    yield "program", {"actors": num_actors, **rates}
    for name, taken in processes.items():
      yield "processes", {"actors": num_actors, "process": name, **taken}


def watch(
  launcher: subprocess.Popen, workdir: pathlib.Path, seconds: float
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
  """Watches a program for a while, from some time after its first update on.

  Args:
    launcher: the launcher's process.
    workdir: the run's.
    seconds: how long.

  Returns:
    What there is to say of all, and, by name, of each process.

  Raises:
    RuntimeError: if it does not start, or ends by itself.
  """

  def status() -> Any:
    return json.loads(
      _read(workdir / "run_status.json") or '{"counts": {}, "nodes": {}}'
    )

  def wait_for_learner(steps: int) -> float:
    return _wait(
      launcher, lambda: status()["counts"].get("learner_steps", 0) >= steps
    )

  first = wait_for_learner(1)
  wait_for_learner(500)
  before = status()
  processes = _find(launcher, before["nodes"])
  _count_cores(processes)
  start = time.monotonic()
  time.sleep(seconds)
  after = status()
  elapsed = time.monotonic() - start
  cores = _count_cores(processes)

  def rate(name: str) -> float:
    return (after["counts"][name] - before["counts"][name]) / elapsed

  metrics = {name: node["metrics"] for name, node in after["nodes"].items()}
  return {
    "first_update_seconds": first,
    "environment_steps_per_second": rate("actor_steps"),
    "learner_steps_per_second": rate("learner_steps"),
    "learner_wait_share": metrics["learner"]["waiting_share"],
    "staleness": max(each.get("staleness", 0.0) for each in metrics.values()),
  }, {
    name: {
      "cores": cores[name],
      "memory_mb": sum(one.memory_info().rss for one in each) / 1e6,
    }
    for name, each in processes.items()
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


def _count_cores(
  processes: Mapping[str, list[psutil.Process]],
) -> dict[str, float]:
  """The cores that each has been busy on since this was last asked."""
  return {
    name: sum(process.cpu_percent() for process in each) / 100.0
    for name, each in processes.items()
  }
