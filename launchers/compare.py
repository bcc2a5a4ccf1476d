"""Compares runs: one picture of their learning curves, and a table."""

import pathlib
import sys

if __name__ == "__main__":
  # The clone comes first, wherever this is started and whatever is installed.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
  from launchers import installation

  installation.check()

import dataclasses
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import tyro

from acme_qsm.experiments.records import loggers
from acme_qsm.experiments.records import plotting
from acme_qsm.experiments.surroundings import launcher
from launchers import installation


@dataclasses.dataclass(frozen=True)
class Arguments:
  """Compares runs: one picture of their learning curves, and a table.

  Attributes:
    directories: folders whose subfolders are the runs of one kind (one per
      seed), such as runs/cartpole_swingup; or work directories of single runs.
    png: the picture to write.
    title: the picture's title.
    last: the table's returns are means over evaluations in this many last
      environment steps of each run.
  """

  directories: Annotated[tuple[str, ...], tyro.conf.Positional]
  png: str = "learning_curves.png"
  title: str = "Evaluation return"
  last: int = 10_000


def find_runs(directory: str) -> list[pathlib.Path]:
  """The work directories at or right below a directory that were evaluated.

  Raises:
    ValueError: if there are none.
  """
  path = pathlib.Path(directory)
  runs = [
    run
    for run in [path, *sorted(path.glob("*"))]
    if len(_read_evaluations(run).get("episode_return", ()))
  ]
  if not runs:
    raise ValueError(f"There is no run with evaluations in {directory}.")
  return runs


def final_return(run: pathlib.Path, last: int) -> float:
  """Mean evaluation return over a run's last environment steps."""
  log = _read_evaluations(run)
  steps = log["actor_steps"]
  return float(np.mean(log["episode_return"][steps > steps[-1] - last]))


def _read_evaluations(run: pathlib.Path) -> Mapping[str, np.ndarray]:
  if not run.is_dir():
    return {}
  return loggers.read_csv(run / "logs" / "evaluator.csv")


@launcher.settled()
def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  arguments = tyro.cli(Arguments, args=argv, use_underscores=True)
  try:
    if not arguments.directories:
      raise ValueError("Name one directory of runs or more.")
    if arguments.last < 1:
      raise ValueError(f"last must be positive, got {arguments.last}.")
    names = [pathlib.Path(each).name for each in arguments.directories]
    runs = {
      name if names.count(name) == 1 else each: find_runs(each)
      for name, each in zip(names, arguments.directories, strict=True)
    }
  except ValueError as error:
    return installation.fail(error, argv)
  for label, directories in runs.items():
    for run in directories:
      value = final_return(run, arguments.last)
      print(f"{label}  {run.name}  {value:.1f}")
  print(
    plotting.plot_learning_curves(runs, arguments.png, title=arguments.title)
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
