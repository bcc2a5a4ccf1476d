"""Trains an agent on a dm_control task, in one process.

The same command goes on from where an interrupted run was left.
"""

import dataclasses
import sys

from acme_qsm import experiments
from acme_qsm.experiments import command_line
from acme_qsm.experiments.local_replay import ReplayKind
from acme_qsm.experiments.records.checkpointing import CheckpointError
from acme_qsm.types import NonFiniteError


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Arguments):
  """What can be said of a run in one process.

  Attributes:
    replay: "embedded" in this process's memory, "reverb" in a Reverb server
      within it; "auto" for the one that the run had before, or else the first
      that the agent can have.
    num_envs: environments that make their steps together.
  """

  replay: ReplayKind = "auto"
  num_envs: int = 1


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  try:
    arguments = command_line.parse(Arguments, argv, __doc__)
    experiment = command_line.make_experiment(arguments)
  except (ValueError, ModuleNotFoundError) as error:
    return command_line.fail(error)
  try:
    experiments.run_experiment(
      experiment,
      eval_every=arguments.eval_every,
      num_eval_episodes=arguments.num_eval_episodes,
      replay=arguments.replay,
      num_envs=arguments.num_envs,
    )
  except (
    *(experiments.ExperimentError, CheckpointError),
    ModuleNotFoundError,
  ) as error:
    return command_line.fail(error)
  except NonFiniteError as error:
    print(f"Stopped. {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("Interrupted; the same command goes on from here.", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(main())
