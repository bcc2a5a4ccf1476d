"""What a run is: all that is decided of it before anything is started."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from acme_qsm import specs
from acme_qsm.experiments import environment_groups
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.config import as_experiment_error
from acme_qsm.experiments.config import EvaluationSchedule
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.records import workdir
from acme_qsm.experiments.seeds import Seeds
from acme_qsm.experiments.surroundings import output


class AgentParts:
  """Makes an agent's parts; its networks and policies once.

  Attributes:
    environment_spec: the environment's spec.
  """

  def __init__(self, experiment: ExperimentConfig, environment_spec: Any):
    """Initialises the maker; makes nothing.

    Args:
      experiment: has the builder and the networks' factory.
      environment_spec: the environment's spec.
    """
    self._builder = experiment.builder
    self._network_factory = experiment.network_factory
    self.environment_spec = environment_spec

  def __getstate__(self) -> dict[str, Any]:
    """What is pickled: what makes networks and policies, and none of these."""
    return {
      "_builder": self._builder,
      "_network_factory": self._network_factory,
      "environment_spec": self.environment_spec,
    }

  @functools.cached_property
  def networks(self) -> Any:
    """The agent's networks."""
    return self._network_factory(self.environment_spec)

  @functools.cached_property
  def policy(self) -> Any:
    """The policy that explores."""
    return self._builder.make_policy(
      self.networks, self.environment_spec, evaluation=False
    )

  @functools.cached_property
  def _evaluation_policy(self) -> Any:
    """The policy that does not explore."""
    return self._builder.make_policy(
      self.networks, self.environment_spec, evaluation=True
    )

  def tables(self) -> Sequence[Any]:
    """Makes replay's tables."""
    return self._builder.make_replay_tables(self.environment_spec, self.policy)

  def check_replay(self) -> None:
    """Raises ValueError if the agent does not go with the environment.

    One with `check_replay` says so without Reverb, which takes longest of all
    to load.
    """
    if self.makes_embedded_replay() and hasattr(self._builder, "check_replay"):
      self._builder.check_replay(self.environment_spec, self.policy)
    else:
      self.tables()

  def makes_embedded_replay(self) -> bool:
    """Whether the builder makes replay in this process's memory."""
    return self._is_last_made("make_embedded_replay", "make_replay_tables")

  def trains_seeds(self) -> bool:
    """Whether the builder makes what trains several seeds at once."""
    return self.makes_embedded_replay() and self._is_last_made(
      "make_seeds_learner", "make_learner"
    )

  def acts_in_several(self) -> bool:
    """Whether the builder makes an actor for several environments or seeds."""
    return self._is_last_made("make_seeds_actor", "make_actor")

  def _is_last_made(self, name: str, other: str) -> bool:
    """Whether no class that extends the one with a method has the other alone.

    A builder that makes something of its own, such as other tables than the
    builder that it extends, and nothing else, is for that.
    """
    for owner in type(self._builder).__mro__:
      if name in vars(owner) or other in vars(owner):
        return name in vars(owner)
    return False

  def embedded_replay(self, seed: int) -> Any:
    """Makes replay in this process's memory."""
    return self._builder.make_embedded_replay(
      self.environment_spec, self.policy, seed
    )

  def dataset(self, client: Any) -> Iterator[Any]:
    """Makes an iterator over what the learner takes from replay."""
    return self._builder.make_dataset_iterator(client)

  def adder(self, client: Any) -> Any:
    """Makes what writes to replay."""
    return self._builder.make_adder(client, self.environment_spec, self.policy)

  def learner(
    self,
    key: Any,
    batches: Iterator[Any],
    logger: Any,
    client: Any,
    counter: Any,
  ) -> Any:
    """Makes the learner.

    Args:
      key: PRNG key of the parameters and of training.
      batches: what it learns from.
      logger: (label, steps_key) -> its logger.
      client: replay's.
      counter: counts its steps.

    Returns:
      The learner.
    """
    return self._builder.make_learner(
      key,
      self.networks,
      batches,
      logger,
      self.environment_spec,
      client,
      counter,
    )

  def actor(self, key: Any, variables: Any, adder: Any) -> Any:
    """Makes an actor that explores, and records what happens."""
    return self._builder.make_actor(
      key, self.policy, self.environment_spec, variables, adder
    )

  def evaluator(self, key: Any, variables: Any) -> Any:
    """Makes an actor that does not explore, and records nothing."""
    return self._builder.make_actor(
      key, self._evaluation_policy, self.environment_spec, variables
    )

  def seeds_learner(self, seeds: Sequence[Any]) -> Any:
    """Makes a learner of several seeds: see `DiffusionBuilder`."""
    return self._builder.make_seeds_learner(
      seeds, self.networks, self.environment_spec
    )

  def seeds_actor(
    self, keys: Sequence[Any], variables: Any, adders: Any = None
  ) -> Any:
    """Makes an actor for several seeds: see `DiffusionBuilder`.

    Args:
      keys: PRNG key of each seed.
      variables: has all seeds' parameters.
      adders: for each seed, what records each of its environments' steps; None
        for an actor that does not explore, and records nothing.
    """
    policy = self._evaluation_policy if adders is None else self.policy
    return self._builder.make_seeds_actor(keys, policy, variables, adders)


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
        _in_folder(experiment, self.folder and self.folder / f"seed_{seed}"),
        seed=seed,
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
    environment_spec = _environment_spec(experiment)
    checkpointing = experiment.checkpointing
    folder = checkpointing and workdir.choose_folder(checkpointing)
    return Run(
      _in_folder(experiment, folder),
      AgentParts(experiment, environment_spec),
      schedule,
    )


def _in_folder(
  experiment: ExperimentConfig, folder: pathlib.Path | None
) -> ExperimentConfig:
  """The same with a work directory that is chosen, if it has one."""
  checkpointing = experiment.checkpointing and dataclasses.replace(
    experiment.checkpointing, directory=str(folder), add_uid=False
  )
  return dataclasses.replace(experiment, checkpointing=checkpointing)


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
