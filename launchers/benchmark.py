"""Measures the speed of the learner, of acting, of replay and of whole runs.

Prints tables, and writes benchmark.json and benchmark.png. The parts learner,
acting and methods need the core alone, the others the extra run; sac and what
is measured of Reverb need the extra acme, and are left out without
(launchers/with_acme.py runs this where it is); program finds it by itself.
"""

import pathlib
import sys

if __name__ == "__main__":
  # The clone comes first, wherever this is started and whatever is installed.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
  from launchers import installation

  installation.check()

import argparse
import importlib
import json
import multiprocessing
import subprocess
import tempfile
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
from typing import Any

from acme_qsm import lazy
from acme_qsm.experiments.surroundings import launcher
from launchers.benchmarks import acting
from launchers.benchmarks import learner
from launchers.benchmarks import machine
from launchers.benchmarks import methods
from launchers.benchmarks import report
from launchers.benchmarks import timing

_TASKS = {"cartpole": "cartpole:swingup", "cheetah": "cheetah:run"}
_NUM_ACTORS = (1, 2, 4)
_NUM_ENVS = (1, 5, 16)
_REPLAYS = {
  "embedded": ("embedded", 1),
  "reverb": ("reverb", 1),
  "reverb, 16 per item": ("reverb", 16),
}
"""By name, the kind of replay and the transitions that are stored together."""
_SLOW = ("sac", "official", "program")
_ROOT = pathlib.Path(__file__).parents[1]


@launcher.settled()
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  parts: dict[str, Callable[[argparse.Namespace], Any]] = {
    "learner": _measure_learner,
    "acting": _measure_acting,
    "methods": _measure_methods,
    "replay": _measure_replay,
    "loop": _measure_loop,
    "environments": _measure_environments,
    "sac": _measure_sac,
    "official": _measure_official,
    "start": _measure_start,
    "program": _measure_program,
  }
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--quick",
    action="store_true",
    help=f"fewer cases, less time for each, without {', '.join(_SLOW)}",
  )
  parser.add_argument(
    "--full",
    action="store_true",
    help="every combination of the learner's sizes: takes hours on a CPU",
  )
  parser.add_argument(
    "--parts", nargs="+", choices=list(parts), default=list(parts)
  )
  parser.add_argument(
    "--output", type=pathlib.Path, default=pathlib.Path("runs/benchmark")
  )
  arguments = parser.parse_args(argv)
  if arguments.quick and arguments.full:
    parser.error("--quick and --full exclude each other")
  try:
    arguments.output.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    parser.error(f"--output {arguments.output} cannot be made: {error}")

  found: dict[str, Any] = {"machine": machine.describe()}
  print(json.dumps(found["machine"], indent=2))
  for name in arguments.parts:
    if arguments.quick and name in _SLOW:
      continue
    print(f"\n{name}", flush=True)
    try:
      found[name] = parts[name](arguments)
    except ModuleNotFoundError as error:
      _leave_out(name, error)
  if "learner" in found:
    found["limit_gflops"] = found["learner"].pop("limit_gflops")
  path = arguments.output / "benchmark.json"
  path.write_text(json.dumps(found, indent=2) + "\n")
  print(f"\nWritten: {path}")
  _plot(found, arguments.output / "benchmark.png")
  return 0


def _leave_out(what: str, error: ModuleNotFoundError) -> None:
  print(f"{what} is left out: {error}", flush=True)


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
  print(report.format_table(rows), flush=True)


def _run_module(name: str, *arguments: object) -> Any:
  """Runs a module of `launchers.benchmarks` in a process of its own.

  Args:
    name: the module's.
    *arguments: its command line's.

  Returns:
    The JSON in the last line of its output.

  Raises:
    ModuleNotFoundError: if it needs what is not installed.
    RuntimeError: if it fails otherwise.
  """
  done = subprocess.run(
    [
      *(sys.executable, "-m", f"launchers.benchmarks.{name}"),
      *map(str, arguments),
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
  )
  if done.returncode:
    if "ModuleNotFoundError" in done.stderr:
      raise ModuleNotFoundError(done.stderr.strip().splitlines()[-1])
    raise RuntimeError(done.stderr)
  return json.loads(done.stdout.splitlines()[-1])


def _measure_learner(arguments: argparse.Namespace) -> dict[str, Any]:
  cases = []
  measured = learner.measure(
    learner.list_cases(arguments.quick, arguments.full),
    repeats=3 if arguments.quick else 9,
    seconds=0.2 if arguments.quick else 0.5,
  )
  for case in measured:
    cases.append(case)
    sizes = {name: case[name] for name in learner.AXES}
    print(
      f"{sizes}: {case['steps_per_second']:,.0f} steps/s, "
      f"{case['share_of_limit']:.0%} of the limit",
      flush=True,
    )
  standard = cases[0]
  return {
    "limit_gflops": standard["limit_gflops"],
    "gflop_per_step": standard["gflop_per_step"],
    "steps_per_second": standard["steps_per_second"],
    "share_of_limit": standard["share_of_limit"],
    "cases": cases,
  }


def _measure_acting(arguments: argparse.Namespace) -> dict[str, Any]:
  found = acting.measure([16, 256], seconds=0.5 if arguments.quick else 5.0)
  print(
    f"one observation: {found['median_ms']:.3f} ms median, "
    f"{found['p99_ms']:.3f} ms 99th percentile"
  )
  for size, rate in found["actions_per_second"].items():
    print(f"{size} observations at once: {rate:,.0f} actions/s")
  return found


def _measure_methods(arguments: argparse.Namespace) -> dict[str, Any]:
  configs = methods.list_configs()
  how = (
    {"repeats": 2, "seconds": 0.1}
    if arguments.quick
    else {"repeats": 9, "seconds": 0.5}
  )
  if arguments.quick:
    configs = {name: configs[name] for name in methods.QUICK}
  rows = methods.measure(configs, **how)
  _print_table(rows)
  name = methods.QUICK[-1] if arguments.quick else methods.DIVIDED
  parts = methods.measure_sdac_parts(configs[name], **how)
  print(f"{name}: {', '.join(f'{k} {v:.3g} ms' for k, v in parts.items())}")
  return {"rows": rows, "parts_ms": {"method": name, **parts}}


def _measure_replay(arguments: argparse.Namespace) -> dict[str, Any]:
  replay = importlib.import_module("launchers.benchmarks.replay")
  size, seconds = (20_000, 1.0) if arguments.quick else (1_000_000, 5.0)
  with tempfile.TemporaryDirectory(dir=arguments.output) as name:
    folder = pathlib.Path(name)
    found = {
      "embedded": _in_new_process(
        replay.measure_embedded, size, seconds, folder
      )
    }
    try:
      reverb = lazy.load("launchers.benchmarks.reverb_replay", "It")
      for name, (kind, per_item) in _REPLAYS.items():
        if kind != "reverb" or (arguments.quick and per_item > 1):
          continue
        each = _in_new_process(reverb.measure, size, seconds, folder, per_item)
        found |= {f"{name}, {where}": row for where, row in each.items()}
    except ModuleNotFoundError as error:
      _leave_out("Reverb", error)
  _print_table([{"replay": name, **row} for name, row in found.items()])
  return found


def _in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls a function where no memory was freed, of which it would take some."""
  spawn = multiprocessing.get_context("spawn")
  with futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
    return pool.submit(function, *arguments).result()


def _measure_loop(arguments: argparse.Namespace) -> dict[str, Any]:
  steps = 300 if arguments.quick else 3_000
  found: dict[str, Any] = {}
  rows = []
  for name, task in _TASKS.items():
    for replay, how in _REPLAYS.items():
      if arguments.quick and (name != "cheetah" or how[1] > 1):
        continue
      try:
        each = _run_module("loop", task, steps, *how)
      except ModuleNotFoundError as error:
        if how[0] == "embedded":
          raise
        _leave_out(replay, error)
        continue
      key = f"{name}, {replay}"
      found[key] = each
      print(
        f"{key}: {each['environment_steps_per_second']:.1f} environment "
        f"steps/s, {each['share_of_learner_rate']:.0%} of the learner's rate "
        f"alone; at most {each['peak_memory_bytes'] / 1e6:,.0f} MB",
        flush=True,
      )
      rows.append(
        {
          "ms per step": key,
          **each["milliseconds_per_step"],
          "update alone": each["update_alone_milliseconds"],
        }
      )
  _print_table(rows)
  return found


def _measure_environments(arguments: argparse.Namespace) -> dict[str, Any]:
  numbers = _NUM_ENVS[:2] if arguments.quick else _NUM_ENVS
  found = _measure_rates(
    {str(number): ("qsm", number) for number in numbers}, arguments.quick
  )
  _print_table([{"environments": name, **row} for name, row in found.items()])
  return found


def _measure_sac(arguments: argparse.Namespace) -> dict[str, Any]:
  found = _measure_rates(
    {"qsm": ("qsm", 1), "acme_sac": ("sac", 1)}, arguments.quick
  )
  _print_table([{"agent": name, **row} for name, row in found.items()])
  return found


def _measure_official(arguments: argparse.Namespace) -> dict[str, Any]:
  del arguments  # It is left out where things are to be quick.
  num_steps = 500
  turns = [
    {
      "plain": _run_module("plain_loop", num_steps),
      "qsm": _run_module("rates", "official", 1, num_steps),
    }
    for _ in range(3)
  ]
  found = timing.compare(turns)
  _print_table([{"loop": name, **row} for name, row in found.items()])
  return found


def _measure_rates(
  cases: Mapping[str, tuple[str, int]], quick: bool
) -> dict[str, Any]:
  """Measures environment steps per second, of each case in turn.

  Args:
    cases: by name, the agent and its environments.
    quick: whether once and for a short while is enough.

  Returns:
    What `timing.compare` makes of them.
  """
  turns = [
    {
      name: _run_module("rates", *case, 500 if quick else 3_000)
      for name, case in cases.items()
    }
    for _ in range(1 if quick else 3)
  ]
  return timing.compare(turns)


def _measure_start(arguments: argparse.Namespace) -> dict[str, Any]:
  start = importlib.import_module("launchers.benchmarks.start")
  repeats = 1 if arguments.quick else 3
  answers = {"local": start.measure_answers("local", repeats)}
  if not arguments.quick:
    try:
      answers["distributed"] = start.measure_answers("distributed", repeats)
    except ModuleNotFoundError as error:
      _leave_out("distributed.py", error)
  _print_table(
    [{"seconds to answer": name, **row} for name, row in answers.items()]
  )
  tasks = {"cheetah": _TASKS["cheetah"]} if arguments.quick else _TASKS
  first_updates = {
    name: start.measure_first_update(task, repeats)
    for name, task in tasks.items()
  }
  _print_table(
    [{"first update": name, **row} for name, row in first_updates.items()]
  )
  return {"answers": answers, "first_update": first_updates}


def _measure_program(arguments: argparse.Namespace) -> dict[str, Any]:
  del arguments
  program = importlib.import_module("launchers.benchmarks.program")
  found, rows = {}, []
  for num_actors in _NUM_ACTORS:
    each = found[str(num_actors)] = program.measure(num_actors, seconds=40.0)
    rows.append(
      {
        "actors": num_actors,
        **{key: value for key, value in each.items() if key != "processes"},
      }
    )
    print(f"{num_actors} actors: cores of each process:", end=" ")
    print(
      ", ".join(
        f"{name} {taken['cores']:.2f}"
        for name, taken in each["processes"].items()
      ),
      flush=True,
    )
  _print_table(rows)
  return found


def _plot(found: dict[str, Any], path: pathlib.Path) -> None:
  cases = found.get("learner", {}).get("cases", [])
  try:
    if report.plot(cases, found.get("program", {}), path):
      print(f"Written: {path}")
  except ModuleNotFoundError as error:
    _leave_out("The picture", error)


if __name__ == "__main__":
  sys.exit(main())
