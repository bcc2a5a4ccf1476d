"""Trains an agent on a dm_control task, in one process.

The same command goes on from where an interrupted run was left.
"""

import pathlib
import sys

if __name__ == "__main__":
  # The clone comes first, wherever this is started and whatever is installed.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
  from launchers import installation

  installation.check()

import dataclasses
import functools
from typing import Literal

from acme_qsm import experiments
from acme_qsm.environments import pool
from acme_qsm.experiments.config import ReplayKind
from acme_qsm.experiments.config import require_at_least
from acme_qsm.experiments.records.disk import CheckpointError
from acme_qsm.experiments.records.disk import SaveError
from acme_qsm.experiments.surroundings import launcher
from acme_qsm.types import InvalidValueError
from launchers import command_line
from launchers import installation


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Arguments):
  """The flags of a run in one process.

  Attributes:
    replay: "embedded" in this process's memory, "reverb" in a Reverb server
      within it; "auto" for the one that the run had before, or else the first
      that the agent can have.
    num_envs: environments that make their steps together, of each seed.
    num_seeds: seeds that are trained at once, from seed on; if more than one,
      each in the folder seed_<seed> of workdir (by default runs/<task>) and
      with an embedded replay.
    env_backend: what steps the environments that are acted in: dm_control, one
      after the other, or envpool, in threads (needs the extra of that name). An
      evaluation is dm_control's in any case.
  """

  replay: ReplayKind = "auto"
  num_envs: int = 1
  num_seeds: int = 1
  env_backend: Literal["dm_control", "envpool"] = "dm_control"

  @property
  def directory(self) -> str:
    """The work directory, or of several seeds that which holds theirs."""
    if self.num_seeds == 1:
      return super().directory
    return self.workdir or self.folder


def _require_possible(arguments: Arguments) -> None:
  """Raises ValueError for flags that do not go together."""
  require_at_least(
    1, num_envs=arguments.num_envs, num_seeds=arguments.num_seeds
  )
  if arguments.num_seeds != 1 and arguments.replay == "reverb":
    raise ValueError("num_seeds must be 1 with --replay reverb.")
  if not command_line.is_acmes(arguments):
    return
  for name in ("num_envs", "num_seeds"):
    if getattr(arguments, name) != 1:
      raise ValueError(f"{name} must be 1 with --agent {arguments.agent}.")
  if arguments.replay == "embedded":
    raise ValueError(f"replay must be reverb with --agent {arguments.agent}.")


def _make_experiment(arguments: Arguments) -> experiments.ExperimentConfig:
  """Makes the experiment that the arguments describe."""
  experiment = command_line.make_experiment(arguments)
  if arguments.env_backend == "dm_control":
    return experiment
  pool.require(arguments.task)
  return dataclasses.replace(
    experiment,
    environment_group_factory=lambda seeds: pool.Pool(
      arguments.task, seeds, action_repeat=arguments.action_repeat
    ),
  )


def _run(
  arguments: Arguments, experiment: experiments.ExperimentConfig
) -> None:
  """Runs one seed or several."""
  if arguments.num_seeds == 1:
    run = functools.partial(
      experiments.run_experiment, experiment, replay=arguments.replay
    )
  else:
    run = functools.partial(
      experiments.run_seeds, experiment, arguments.num_seeds
    )
  run(
    eval_every=arguments.eval_every,
    num_eval_episodes=arguments.num_eval_episodes,
    num_envs=arguments.num_envs,
  )


@launcher.settled()
def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  try:
    arguments = command_line.parse(Arguments, argv, __doc__)
    _require_possible(arguments)
    experiment = _make_experiment(arguments)
  except (ValueError, ModuleNotFoundError) as error:
    return installation.fail(error, argv)
  try:
    _run(arguments, experiment)
  except (
    *(experiments.ExperimentError, CheckpointError),
    ModuleNotFoundError,
  ) as error:
    return installation.fail(error, argv)
  except (InvalidValueError, SaveError) as error:
    print(f"Stopped. {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("Interrupted; the same command goes on from here.", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
