"""Measures the speed of the learner, of acting, of replay and of whole runs.

Prints tables, and writes benchmark.json and benchmark.png. The parts learner,
acting and methods need the core alone.
"""

import argparse
import importlib
import itertools
import json
import multiprocessing
import pathlib
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import acme_qsm
from launchers.benchmarks import acting
from launchers.benchmarks import learner
from launchers.benchmarks import machine
from launchers.benchmarks import methods

_TASKS = {"cartpole": "cartpole:swingup", "cheetah": "cheetah:run"}
_NUM_ACTORS = (1, 2, 4)
_TRANSITIONS_PER_ITEM = 16
"""In replay, besides 1."""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  parts: dict[str, Callable[[argparse.Namespace], Any]] = {
    "learner": _measure_learner,
    "acting": _measure_acting,
    "methods": _measure_methods,
    "replay": _measure_replay,
    "loop": _measure_loop,
    "program": _measure_program,
  }
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--quick",
    action="store_true",
    help="fewer cases, less time for each, without program",
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
    if arguments.quick and name == "program":
      continue
    print(f"\n{name}", flush=True)
    try:
      found[name] = parts[name](arguments)
    except ModuleNotFoundError as error:
      print(f"left out: it needs the extra acme ({error})")
  if "learner" in found:
    found["limit_gflops"] = found["learner"].pop("limit_gflops")
  path = arguments.output / "benchmark.json"
  path.write_text(json.dumps(found, indent=2) + "\n")
  print(f"\nWritten: {path}")
  _plot(found, arguments.output / "benchmark.png")
  return 0


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
  report = importlib.import_module("launchers.benchmarks.report")
  print(report.format_table(rows), flush=True)


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
    kept = (methods.STANDARD, "sdac, as by default")
    configs = {name: configs[name] for name in kept}
  rows = methods.measure(configs, **how)
  _print_table(rows)
  name, config = list(configs.items())[-1]
  if not isinstance(config, acme_qsm.SDACConfig):
    raise TypeError(f"{name} is no configuration of SDAC.")
  parts = methods.measure_sdac_parts(config, **how)
  print(f"{name}: {', '.join(f'{k} {v:.3g} ms' for k, v in parts.items())}")
  return {"rows": rows, "parts_ms": {"method": name, **parts}}


def _measure_replay(arguments: argparse.Namespace) -> dict[str, Any]:
  replay = importlib.import_module("launchers.benchmarks.replay")
  if arguments.quick:
    found = replay.measure(num_transitions=20_000, seconds=1.0)
  else:
    found = {}
    for number in (1, _TRANSITIONS_PER_ITEM):
      # A process that has freed memory before would seem to need less.
      spawn = multiprocessing.get_context("spawn")
      with futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        each = pool.submit(replay.measure, 1_000_000, 5.0, number).result()
      found |= {_key(where, number): row for where, row in each.items()}
  _print_table([{"server": where, **row} for where, row in found.items()])
  return found


def _key(name: str, transitions_per_item: int) -> str:
  if transitions_per_item == 1:
    return name
  return f"{name}_{transitions_per_item}_per_item"


def _measure_loop(arguments: argparse.Namespace) -> dict[str, Any]:
  steps = 300 if arguments.quick else 3_000
  per_item = (1,) if arguments.quick else (1, _TRANSITIONS_PER_ITEM)
  found = {}
  for number, (name, task) in itertools.product(per_item, _TASKS.items()):
    key = _key(name, number)
    each = found[key] = _run_loop(task, steps, number)
    shares = ", ".join(
      f"{part} {share:.0%}" for part, share in each["shares_of_time"].items()
    )
    print(
      f"{key}: {each['environment_steps_per_second']:.1f} environment steps/s, "
      f"{each['share_of_learner_rate']:.0%} of the learner's rate alone; first "
      f"update after {each['first_update_seconds']:.1f} s; {shares}",
      flush=True,
    )
  return found


def _run_loop(
  task: str, num_steps: int, transitions_per_item: int
) -> dict[str, Any]:
  """In a process of its own: see `launchers.benchmarks.loop`."""
  done = subprocess.run(
    [
      *(sys.executable, "-m", "launchers.benchmarks.loop"),
      *(task, str(num_steps), str(transitions_per_item)),
    ],
    cwd=pathlib.Path(__file__).parents[1],
    capture_output=True,
    text=True,
  )
  if done.returncode:
    if "ModuleNotFoundError" in done.stderr:
      raise ModuleNotFoundError(done.stderr.strip().splitlines()[-1])
    raise RuntimeError(done.stderr)
  return json.loads(done.stdout.splitlines()[-1])


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
  try:
    report = importlib.import_module("launchers.benchmarks.report")
  except ModuleNotFoundError as error:
    print(f"No picture: it needs the extra acme ({error}).")
    return
  cases = found.get("learner", {}).get("cases", [])
  if report.plot(cases, found.get("program", {}), path):
    print(f"Written: {path}")


if __name__ == "__main__":
  sys.exit(main())
