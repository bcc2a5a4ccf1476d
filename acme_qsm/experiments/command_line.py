"""What the launchers' command lines have in common."""

import argparse
import dataclasses
import sys
from typing import Annotated
from typing import TypeVar

import tyro

from acme_qsm import environments
from acme_qsm.agents.builder import QSMBuilder
from acme_qsm.core import config as config_lib
from acme_qsm.core.config import QSMConfig
from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.networks import make_networks


@dataclasses.dataclass(frozen=True)
class Arguments:
  """What can be said of a run of Q-score matching on a dm_control task.

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


_Arguments = TypeVar("_Arguments", bound=Arguments)


def parse(
  arguments_type: type[_Arguments],
  argv: list[str] | None = None,
  description: str | None = None,
) -> _Arguments:
  """Reads the command line.

  Args:
    arguments_type: `Arguments` or what extends it.
    argv: the arguments; None for those of the process.
    description: what the help says first.

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
    arguments_type,
    args=argv,
    description=description,
    default=arguments_type(config=config_lib.PRESETS[preset]),
    use_underscores=True,
  )
  environments.validate_task(arguments.task)
  return arguments


def make_experiment(arguments: Arguments) -> ExperimentConfig:
  """Makes the experiment that the arguments describe."""
  config, task = arguments.config, arguments.task
  return ExperimentConfig(
    builder=QSMBuilder(config),
    network_factory=lambda spec: make_networks(spec, config),
    environment_factory=lambda seed: environments.make(task, seed),
    max_num_actor_steps=arguments.num_steps,
    seed=arguments.seed,
    checkpointing=CheckpointingConfig(
      max_to_keep=arguments.max_checkpoints,
      directory=arguments.directory,
      add_uid=False,
      time_delta_minutes=arguments.checkpoint_minutes,
    ),
    description={"task": task},
  )


def fail(error: Exception) -> int:
  """Prints an error; returns the exit code of a run that was not started."""
  print(f"Error: {error}", file=sys.stderr)
  return 2
