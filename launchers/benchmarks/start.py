"""How long a launcher takes to say something, and to its first update."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

_ROOT = pathlib.Path(__file__).parents[2]
_POLL_SECONDS = 0.02
_DEADLINE_SECONDS = 300.0

COMMANDS: Mapping[str, list[str]] = {
  "help": ["--help"],
  "unknown flag": ["--learning_rat", "1"],
  "unknown task": ["--task", "cartpole:swingup2"],
  "value out of range": ["--num_denoising_steps", "0"],
}
"""What a launcher answers at once, by what it is."""


def measure_answers(launcher: str, repeats: int) -> dict[str, float]:
  """Measures how long a launcher takes to answer `COMMANDS`.

  Args:
    launcher: its name.
    repeats: how often each is asked.

  Returns:
    By name, the least seconds from the command to its end.

  Raises:
    RuntimeError: if an answer is not help, or the error of a bad flag.
    ModuleNotFoundError: if the launcher needs what is not installed.
  """
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
  """Measures the time from a command to the end of the first update.

  Args:
    task: of the dm_control suite, as domain:task.
    repeats: how often, each time with an empty compilation cache and then with
      what that run has left there.

  Returns:
    The least seconds with an empty cache and with a full one.

  Raises:
    RuntimeError: if there is no update; with the output.
  """
  cold, warm = [], []
  for _ in range(repeats):
    with tempfile.TemporaryDirectory() as cache:
      cold.append(_first_update(task, cache))
      warm.append(_first_update(task, cache))
  return {"cold_seconds": min(cold), "warm_seconds": min(warm)}


def _first_update(task: str, cache: str) -> float:
  environment = {**os.environ, "XDG_CACHE_HOME": cache}
  # It would be used instead.
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder, "run")
    output = pathlib.Path(folder, "output")
    command = [
      *(sys.executable, "launchers/local.py", "--task", task),
      *("--min_replay_size", "1000", "--num_denoising_steps", "5"),
      *("--num_eval_episodes", "0", "--workdir", str(workdir)),
    ]
    started = time.perf_counter()
    with output.open("w") as file:
      run = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=environment,
        stdout=file,
        stderr=subprocess.STDOUT,
      )
    try:
      while not _has_row(workdir / "logs" / "learner.csv"):
        elapsed = time.perf_counter() - started
        if run.poll() is not None or elapsed > _DEADLINE_SECONDS:
          raise RuntimeError(f"No update:\n{output.read_text()[-2000:]}")
        time.sleep(_POLL_SECONDS)
      return time.perf_counter() - started
    finally:
      # Asked to end, it would save first.
      run.kill()
      run.wait()


def _has_row(path: pathlib.Path) -> bool:
  """Whether there is a row below a table's head."""
  try:
    return path.read_text().count("\n") > 1
  except FileNotFoundError:
    return False
