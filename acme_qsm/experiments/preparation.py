"""Finds what is wrong with an experiment before any work is done."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from acme_qsm import specs
from acme_qsm.experiments import environment_groups
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.evaluation import EvaluationSchedule
from acme_qsm.experiments.parts import AgentParts
from acme_qsm.experiments.records import workdir as workdir_lib
from acme_qsm.experiments.surroundings import output


@dataclasses.dataclass(frozen=True)
class Prepared:
  """An experiment that can be run.

  Attributes:
    experiment: the experiment.
    parts: its agent's parts.
    schedule: when it is evaluated.
    description: what identifies the run.
  """

  experiment: ExperimentConfig
  parts: AgentParts
  schedule: EvaluationSchedule
  description: "workdir_lib.Description"

  def for_seed(
    self, index: int, seed: int, folder: pathlib.Path | None
  ) -> "Prepared":
    """The same with another seed, whose parts are those of this one.

    Args:
      index: tells the seed from others to a logger_factory, as an instance.
      seed: the seed.
      folder: its work directory; None for none.

    Returns:
      The experiment, ready to run.

    Raises:
      ExperimentError: if it is no seed.
    """
    experiment = self.experiment
    checkpointing = experiment.checkpointing
    if checkpointing is not None:
      checkpointing = dataclasses.replace(
        checkpointing, directory=str(folder), add_uid=False
      )
    make_logger = experiment.logger_factory
    if make_logger is not None:
      make_logger = functools.partial(_make_logger, make_logger, index)
    with as_experiment_error():
      experiment = dataclasses.replace(
        experiment,
        seed=seed,
        checkpointing=checkpointing,
        logger_factory=make_logger,
      )
    return dataclasses.replace(
      self,
      experiment=experiment,
      description=workdir_lib.describe_run(
        experiment, self.parts.environment_spec
      ),
    )

  def open_workdir(self) -> workdir_lib.Workdir | None:
    """Claims the work directory, if the experiment has one.

    Returns:
      The directory, locked until it is closed.

    Raises:
      ExperimentError: if it cannot hold this run.
    """
    if self.experiment.checkpointing is None:
      return None
    with as_experiment_error():
      return workdir_lib.open_workdir(
        self.experiment.checkpointing, self.description
      )


def prepare(
  experiment: ExperimentConfig, eval_every: int, num_eval_episodes: int
) -> Prepared:
  """Makes what an experiment needs and checks it.

  Args:
    experiment: what to run.
    eval_every: environment steps between evaluations, positive.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluation.

  Returns:
    The experiment, ready to run.

  Raises:
    ExperimentError: if an argument or the environment cannot be used.
  """
  # Before any file is opened: a script may have none of them.
  output.occupy_descriptors()
  with as_experiment_error():
    schedule = EvaluationSchedule(
      eval_every, num_eval_episodes, experiment.max_num_actor_steps
    )
    if experiment.evaluator_factories is not None:
      schedule = dataclasses.replace(schedule, num_episodes=0)
    parts = AgentParts(experiment, _environment_spec(experiment))
    return Prepared(
      experiment,
      parts,
      schedule,
      workdir_lib.describe_run(experiment, parts.environment_spec),
    )


def _make_logger(
  make_logger: Callable[..., Any],
  number: int,
  label: str,
  steps_key: str,
  instance: int = 0,
) -> Any:
  """Makes a seed's logger, the seed's number in place of the instance."""
  del instance
  return make_logger(label, steps_key, number)


def require_at_least(least: int, **arguments: int) -> None:
  """Raises ExperimentError, which names it, for an argument that is less."""
  for name, value in arguments.items():
    if value < least:
      raise ExperimentError(f"{name} must be at least {least}, got {value}.")


@contextlib.contextmanager
def as_experiment_error() -> Iterator[None]:
  """Turns what is found to be wrong into an `ExperimentError`."""
  try:
    yield
  except ExperimentError:
    raise
  except ValueError as error:
    raise ExperimentError(str(error)) from error


@contextlib.contextmanager
def as_start_error() -> Iterator[None]:
  """Turns what the file system says at the start into an `ExperimentError`."""
  try:
    yield
  except OSError as error:
    raise ExperimentError(f"The run cannot start: {error}.") from error


def warn_of_no_learning(experiment: ExperimentConfig) -> str | None:
  """Says so if a run is to end before learning begins.

  Args:
    experiment: what is to be run.

  Returns:
    A line that names the field to change; None if learning will begin.
  """
  least = _min_replay_size(experiment)
  # About one transition for each environment step.
  if least is None or experiment.max_num_actor_steps >= least:
    return None
  return (
    "Warning: nothing will be learned. Learning begins once replay holds "
    f"min_replay_size={least:,} transitions, and the run ends at "
    f"{experiment.max_num_actor_steps:,} environment steps: lower "
    "min_replay_size, or make more steps."
  )


def describe_no_learning(experiment: ExperimentConfig) -> str:
  """Says why a run that has ended made no learner step, by the field's name."""
  least = _min_replay_size(experiment)
  if least is None:
    return "Nothing was learned: no learner step was due."
  return (
    "Nothing was learned: replay did not come to hold "
    f"min_replay_size={least:,} transitions in "
    f"{experiment.max_num_actor_steps:,} environment steps."
  )


def _min_replay_size(experiment: ExperimentConfig) -> int | None:
  """Transitions that replay holds before learning begins, where it is known."""
  config = getattr(experiment.builder, "config", None)
  if isinstance(config, Mapping):  # Of a builder of Acme's.
    config = config.get("config")
  return getattr(config, "min_replay_size", None)


def _environment_spec(experiment: ExperimentConfig) -> Any:
  """The environment's spec, which the agent's replay goes with."""
  packs = getattr(experiment.builder, "packs_transitions", False)
  if experiment.environment_spec is not None:
    if not packs:
      time_steps.require_storable(experiment.environment_spec)
    return experiment.environment_spec
  with environment_groups.opened(
    lambda: experiment.environment_factory(experiment.seed)
  ) as environment:
    environment_spec = specs.make_environment_spec(environment)
    if not packs:
      time_steps.require_storable(environment_spec, environment)
    return environment_spec
