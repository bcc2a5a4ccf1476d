"""What a run is: all that is decided of it before anything is started."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

from acme_qsm import specs
from acme_qsm.experiments import environment_groups
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.config import as_experiment_error
from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.config import EvaluationSchedule
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.parts import AgentParts
from acme_qsm.experiments.records import workdir
from acme_qsm.experiments.seeds import Seeds
from acme_qsm.experiments.surroundings import output


@dataclasses.dataclass(frozen=True)
class Run:
  """What a run of one seed is, in one process or in many: prepared once.

  It can be pickled, and is then without the networks and policies that its
  parts have made: each process makes those that it needs.

  Attributes:
    experiment: the experiment, whose work directory is chosen: `add_uid` is
      false.
    parts: makes the agent's parts for the environment.
    schedule: when the run is evaluated.
    name: what the seed is called in messages; "" where it is the only one.
  """

  experiment: ExperimentConfig
  parts: AgentParts
  schedule: EvaluationSchedule
  name: str = ""

  @property
  def environment_spec(self) -> Any:
    """The environment's spec."""
    return self.parts.environment_spec

  @property
  def folder(self) -> pathlib.Path | None:
    """The work directory; None for a run that keeps no files."""
    checkpointing = self.experiment.checkpointing
    return pathlib.Path(checkpointing.directory) if checkpointing else None

  @property
  def seeds(self) -> Seeds:
    """The seeds of all that is random."""
    return Seeds(self.experiment.seed)

  @property
  def description(self) -> workdir.Description:
    """What identifies the run in its work directory."""
    return workdir.describe_run(self.experiment, self.environment_spec)

  def open_workdir(self) -> workdir.Workdir | None:
    """Claims the work directory, if the run has one.

    Returns:
      The directory, locked until it is closed.

    Raises:
      ExperimentError: if it cannot hold this run.
    """
    if self.experiment.checkpointing is None:
      return None
    with as_experiment_error():
      return workdir.open_workdir(
        self.experiment.checkpointing, self.description
      )

  def of_seeds(self, num_seeds: int) -> "list[Run]":
    """The runs of several seeds, from this one's on, with the same parts.

    Args:
      num_seeds: how many.

    Returns:
      A run for each, in the folder `seed_<seed>` of this one's; their numbers
      are the instances that a logger_factory is told.

    Raises:
      ExperimentError: if a seed is too large.
    """
    return [self._of_seed(index) for index in range(num_seeds)]

  def _of_seed(self, index: int) -> "Run":
    experiment = self.experiment
    seed = experiment.seed + index
    make_logger = experiment.logger_factory
    if make_logger is not None:
      make_logger = functools.partial(_make_logger, make_logger, index)
    with as_experiment_error():
      experiment = dataclasses.replace(
        experiment,
        seed=seed,
        checkpointing=_at(
          experiment.checkpointing,
          self.folder / f"seed_{seed}" if self.folder else None,
        ),
        logger_factory=make_logger,
      )
    return dataclasses.replace(self, experiment=experiment, name=f"seed {seed}")


def prepare(
  experiment: ExperimentConfig, eval_every: int, num_eval_episodes: int
) -> Run:
  """Looks at an experiment and its environment, and says what its run is.

  Args:
    experiment: what to run.
    eval_every: environment steps between evaluations, positive.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluation.

  Returns:
    The run; nothing of it is started, and nothing is written.

  Raises:
    ExperimentError: if an argument or the environment cannot be used.
  """
  # Before any file is opened: a script may have none of them.
  output.occupy_descriptors()
  with as_experiment_error():
    if experiment.evaluator_factories is not None:
      num_eval_episodes = 0
    schedule = EvaluationSchedule(
      eval_every, num_eval_episodes, experiment.max_num_actor_steps
    )
    parts = AgentParts(experiment, _environment_spec(experiment))
    checkpointing = experiment.checkpointing
    if checkpointing is not None:
      checkpointing = _at(checkpointing, workdir.choose_folder(checkpointing))
    return Run(
      dataclasses.replace(experiment, checkpointing=checkpointing),
      parts,
      schedule,
    )


def _at(
  checkpointing: CheckpointingConfig | None, folder: pathlib.Path | None
) -> CheckpointingConfig | None:
  """The same in a folder that is chosen."""
  if checkpointing is None:
    return None
  return dataclasses.replace(
    checkpointing, directory=str(folder), add_uid=False
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
