"""Trains Q-score matching on a dm_control task, in one process.

The same command goes on from where an interrupted run was left.
"""

import argparse
import dataclasses
import sys
from typing import Annotated

import tyro

from acme_qsm import config as config_lib
from acme_qsm import environments
from acme_qsm import experiments
from acme_qsm import make_networks
from acme_qsm import QSMBuilder
from acme_qsm import QSMConfig
from acme_qsm.experiments.checkpointing import CheckpointError
from acme_qsm.types import NonFiniteError


@dataclasses.dataclass(frozen=True)
class Arguments:
  """Trains Q-score matching on a dm_control task, in one process.

  The same command goes on from where an interrupted run was left.

  Attributes:
    config: the method's hyper-parameters.
    preset: what the hyper-parameters are unless given: default or official.
    task: a task of the dm_control suite, as domain:task.
    seed: seed of parameters, actions and environments.
    num_steps: environment steps to train for.
    workdir: where the run's files go; by default runs/<task>/seed_<seed>.
    eval_every: environment steps between evaluations.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluation.
    checkpoint_minutes: minutes between checkpoints.
    max_checkpoints: checkpoints to keep.
  """

  config: Annotated[QSMConfig, tyro.conf.arg(name="")]
  preset: str = "default"
  task: str = "cartpole:swingup"
  seed: int = 0
  num_steps: int = 100_000
  workdir: str | None = None
  eval_every: int = 5_000
  num_eval_episodes: int = 5
  checkpoint_minutes: float = 5.0
  max_checkpoints: int = 2

  @property
  def directory(self) -> str:
    """The work directory."""
    task = self.task.replace(":", "_")
    return self.workdir or f"runs/{task}/seed_{self.seed}"


def parse(argv: list[str] | None = None) -> Arguments:
  """Reads the command line.

  Args:
    argv: the arguments; None for those of the process.

  Returns:
    The arguments, checked.

  Raises:
    SystemExit: if they cannot be read, with a message.
    ValueError: if a value is not allowed.
  """
  # The preset first: it is what the other flags override.
  parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
  parser.add_argument("--preset", default="default")
  preset = parser.parse_known_args(argv)[0].preset
  if preset not in config_lib.PRESETS:
    raise ValueError(
      f"Unknown preset {preset!r}; one of {sorted(config_lib.PRESETS)}."
    )
  arguments = tyro.cli(
    Arguments,
    args=argv,
    default=Arguments(config=config_lib.PRESETS[preset]),
    use_underscores=True,
  )
  environments.validate_task(arguments.task)
  return arguments


def make_experiment(arguments: Arguments) -> experiments.ExperimentConfig:
  """Makes the experiment that the arguments describe."""
  return experiments.ExperimentConfig(
    builder=QSMBuilder(arguments.config),
    network_factory=lambda spec: make_networks(spec, arguments.config),
    environment_factory=lambda seed: environments.make(arguments.task, seed),
    max_num_actor_steps=arguments.num_steps,
    seed=arguments.seed,
    checkpointing=experiments.CheckpointingConfig(
      max_to_keep=arguments.max_checkpoints,
      directory=arguments.directory,
      add_uid=False,
      time_delta_minutes=arguments.checkpoint_minutes,
    ),
    description={"task": arguments.task},
  )


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  try:
    arguments = parse(argv)
    experiment = make_experiment(arguments)
  except ValueError as error:
    return _fail(error)
  try:
    experiments.run_experiment(
      experiment,
      eval_every=arguments.eval_every,
      num_eval_episodes=arguments.num_eval_episodes,
    )
  except (experiments.ExperimentError, CheckpointError) as error:
    return _fail(error)
  except NonFiniteError as error:
    print(f"Stopped. {error}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("Interrupted; the same command goes on from here.", file=sys.stderr)
    return 130
  return 0


def _fail(error: Exception) -> int:
  print(f"Error: {error}", file=sys.stderr)
  return 2


if __name__ == "__main__":
  sys.exit(main())
