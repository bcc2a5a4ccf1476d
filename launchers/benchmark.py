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
import collections
import importlib
import json
from collections.abc import Sequence
from typing import Any

from acme_qsm.experiments.surroundings import launcher

PARTS = {
  "learner": ("learner", "measure"),
  "acting": ("learner", "measure_acting"),
  "methods": ("methods", "measure"),
  "replay": ("replay", "measure"),
  "loop": ("loop", "measure"),
  "environments": ("runs", "measure_environments"),
  "sac": ("runs", "measure_sac"),
  "official": ("runs", "measure_official"),
  "start": ("launched", "measure_start"),
  "program": ("launched", "measure_program"),
}
"""What measures each part: (effort) -> rows; a module and a function there."""

_SLOW = ("sac", "official", "program")


@launcher.settled()
def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
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
    "--parts", nargs="+", choices=list(PARTS), default=list(PARTS)
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

  from launchers.benchmarks import report
  from launchers.benchmarks import timing

  effort = timing.Effort(arguments.quick, arguments.full, arguments.output)
  found: dict[str, Any] = {"machine": report.describe_machine()}
  print(json.dumps(found["machine"], indent=2))
  for part in arguments.parts:
    if arguments.quick and part in _SLOW:
      continue
    print(f"\n{part}", flush=True)
    try:
      found[part] = _measure(part, effort)
    except ModuleNotFoundError as error:
      report.leave_out(part, error)
  path = arguments.output / "benchmark.json"
  path.write_text(json.dumps(found, indent=2) + "\n")
  print(f"\nWritten: {path}")
  picture = arguments.output / "benchmark.png"
  try:
    learner, program = (
      found.get(part, {}).get(part, []) for part in ("learner", "program")
    )
    if report.plot(learner, program, picture):
      print(f"Written: {picture}")
  except ModuleNotFoundError as error:
    report.leave_out("The picture", error)
  return 0


def _measure(part: str, effort: Any) -> dict[str, list[Any]]:
  """Measures a part, names each case that is done, and prints the tables.

  Returns:
    By each table's name, its rows.
  """
  from launchers.benchmarks import report

  module, function = PARTS[part]
  measure = getattr(
    importlib.import_module(f"launchers.benchmarks.{module}"), function
  )
  tables = collections.defaultdict(list)
  for table, row in measure(effort):
    tables[table].append(row)
    print(f"  {table}: {next(iter(row.values()))}", file=sys.stderr, flush=True)
  for rows in tables.values():
    print(report.format_table(rows), flush=True)
  return dict(tables)


if __name__ == "__main__":
  sys.exit(main())
