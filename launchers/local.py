"""Trains an agent on a dm_control task, in one process.

The same command goes on from where an interrupted run was left.
"""

import sys

from acme_qsm import experiments
from acme_qsm.experiments import command_line
from acme_qsm.experiments.records.checkpointing import CheckpointError
from acme_qsm.types import NonFiniteError


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  try:
    arguments = command_line.parse(command_line.Arguments, argv, __doc__)
    experiment = command_line.make_experiment(arguments)
  except ValueError as error:
    return command_line.fail(error)
  try:
    experiments.run_experiment(
      experiment,
      eval_every=arguments.eval_every,
      num_eval_episodes=arguments.num_eval_episodes,
    )
  except (experiments.ExperimentError, CheckpointError) as error:
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
