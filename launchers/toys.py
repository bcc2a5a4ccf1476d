"""Runs a toy problem of the papers: a picture, and numbers beside exact ones.

The first argument names the toy. Needs the extra run.
"""

import pathlib
import sys

if __name__ == "__main__":
  # The clone comes first, wherever this is started and whatever is installed.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
  from launchers import installation

  installation.check()

import importlib
import json
import math
import os
from typing import Any

import tyro

from acme_qsm import configuration
from acme_qsm.experiments.surroundings import homes
from acme_qsm.experiments.surroundings import launcher
from launchers import installation
from launchers.toy_problems import arguments

# The toys themselves load JAX and matplotlib: not to help, or to refuse.
TOYS = {
  "mixture": (
    arguments.Mixture(),
    "launchers.toy_problems.mixture",
    "two Gaussians, from their density alone (SDAC, Figure 2)",
  ),
  "boltzmann": (
    arguments.Boltzmann(),
    "launchers.toy_problems.boltzmann",
    "what Langevin steps along alpha grad Q draw from (QSM, eq. 20)",
  ),
  "gridworld": (
    arguments.Gridworld(),
    "launchers.toy_problems.gridworld",
    "entropy against alpha in a gridworld (QSM, Figure 2)",
  ),
  "modes": (
    arguments.Modes(),
    "launchers.toy_problems.modes",
    "policies of several modes, in one and two dimensions (QSM, Figure 4)",
  ),
}


def parse(argv: list[str]) -> tuple[str, arguments.Arguments]:
  """Reads the command line.

  Args:
    argv: the arguments.

  Returns:
    The toy's name and its arguments, checked.

  Raises:
    SystemExit: if they cannot be read, with a message.
    ValueError: if there is no such toy, or a value is not allowed.
  """
  if not argv:
    raise ValueError(f"Name a toy: one of {[*TOYS]}.")
  if not argv[0].startswith("-"):
    configuration.require_known("toy", argv[0], TOYS)
  chosen: arguments.Arguments = tyro.cli(
    tyro.extras.subcommand_type_from_defaults(
      {name: default for name, (default, _, _) in TOYS.items()},
      {name: description for name, (_, _, description) in TOYS.items()},
      prefix_names=False,
    ),
    args=argv,
    description=__doc__,
    use_underscores=True,
  )
  chosen.validate()
  return type(chosen).__name__.lower(), chosen


def open_folder(path: pathlib.Path) -> pathlib.Path:
  """Makes the folder that results go to.

  Raises:
    ValueError: if that cannot be.
  """
  if path.exists() and not path.is_dir():
    raise ValueError(f"workdir {path} is not a folder.")
  try:
    path.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(f"workdir {path} cannot be made: {error}.") from error
  if not os.access(path, os.W_OK):
    raise ValueError(f"workdir {path} cannot be written to.")
  return path


def make_json(value: Any) -> Any:
  """Numbers, strings, dicts and lists as JSON has them, None for a NaN."""
  if isinstance(value, dict):
    return {name: make_json(each) for name, each in value.items()}
  if isinstance(value, list | tuple):
    return [make_json(each) for each in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def _run(name: str, chosen: arguments.Arguments, folder: pathlib.Path) -> None:
  """Runs a toy, writes what it found and prints it."""
  with homes.matplotlib_folder():
    toy = importlib.import_module(TOYS[name][1])
  found = toy.run(chosen)
  numbers = {"toy": name, "arguments": vars(chosen), **found.numbers}
  text = json.dumps(make_json(numbers), indent=2, allow_nan=False) + "\n"
  disk = importlib.import_module("acme_qsm.experiments.records.disk")
  plotting = importlib.import_module("acme_qsm.experiments.records.plotting")
  report = importlib.import_module("launchers.benchmarks.report")
  disk.write_atomically(folder / "result.json", text.encode())
  plotting.save_figure(found.picture, folder / f"{name}.png")
  print(report.format_table(found.rows))
  print(f"Written: {folder / 'result.json'}, {folder / f'{name}.png'}")


@launcher.settled()
def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  try:
    name, chosen = parse(sys.argv[1:] if argv is None else argv)
    folder = open_folder(pathlib.Path(chosen.workdir or f"runs/toys/{name}"))
  except ValueError as error:
    return installation.fail(error, argv)
  try:
    _run(name, chosen, folder)
  except (ModuleNotFoundError, OSError) as error:
    return installation.fail(error, argv)
  except KeyboardInterrupt:
    print("Interrupted.", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
