"""What an experiment is: an agent, an environment and for how long.

It is checked without JAX, so that a command line refuses fast what cannot be.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal
from typing import Protocol

import dm_env
import numpy as np

ReplayKind = Literal["auto", "embedded", "reverb"]


class ExperimentError(ValueError):
  """An experiment that cannot be run as it is described."""


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


class Group(Protocol):
  """Environments that make their steps together.

  Attributes:
    environments: what observers are told of each.
  """

  environments: Sequence[Any]

  def reset(self, index: int) -> dm_env.TimeStep:
    """Begins an episode in one of them."""
    ...

  def step(self, actions: Sequence[np.ndarray]) -> Sequence[dm_env.TimeStep]:
    """Makes a step in as many of them, the first, as there are actions."""
    ...

  def close(self) -> None:
    """Closes all."""
    ...


@dataclasses.dataclass(frozen=True)
class CheckpointingConfig:
  """Where a run keeps its files and how often it saves.

  Attributes:
    max_to_keep: checkpoints kept, at least 1.
    directory: the run's work directory; `~` is expanded.
    add_uid: whether each run gets a new folder of its own below the directory.
      Without, a run goes on from what it finds in the directory.
    time_delta_minutes: minutes between checkpoints, positive.
  """

  max_to_keep: int = 1
  directory: str = "~/acme_qsm"
  add_uid: bool = True
  time_delta_minutes: float = 5.0

  def __post_init__(self):
    if self.max_to_keep < 1:
      raise ValueError(
        f"max_to_keep must be at least 1, got {self.max_to_keep}."
      )
    if not self.time_delta_minutes > 0:
      raise ValueError(
        f"time_delta_minutes must be positive, got {self.time_delta_minutes}."
      )


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
  """An experiment that runs in one process or in many.

  The fields are those of Acme's own `ExperimentConfig`, so that a script moves
  between the two by its import; the last two are ours.

  Attributes:
    builder: makes the agent's parts, such as `acme_qsm.QSMBuilder`.
    network_factory: environment_spec -> networks.
    environment_factory: seed -> environment.
    max_num_actor_steps: environment steps to train for, positive.
    seed: seed of the parameters, of the actions and of the environments.
    evaluator_factories: an empty sequence switches evaluation off.
    environment_spec: the environment's spec; None to ask an environment.
    observers: Acme observers, whose metrics are added to the actor's logs.
    logger_factory: (label, steps_key, instance) -> logger; None for CSV and
      TensorBoard files in the work directory.
    checkpointing: where to keep the run's files; None to keep none.
    environment_group_factory: seeds -> as many environments that make their
      steps together, in the form of `environment_factory`, for a run in one
      process to act in; None for those of `environment_factory`, one after the
      other. Evaluations are of that in any case.
    description: what else identifies the run, such as its task; a work
      directory that holds a run of another description is refused.
  """

  builder: Any
  network_factory: Callable[[Any], Any]
  environment_factory: Callable[[int], dm_env.Environment]
  max_num_actor_steps: int
  seed: int
  evaluator_factories: Sequence[Any] | None = None
  environment_spec: Any | None = None
  observers: Sequence[Any] = ()
  logger_factory: Callable[..., Any] | None = None
  checkpointing: CheckpointingConfig | None = CheckpointingConfig()
  environment_group_factory: Callable[[Sequence[int]], Group] | None = None
  description: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.max_num_actor_steps < 1:
      raise ValueError(
        f"max_num_actor_steps must be positive, got {self.max_num_actor_steps}."
      )
    if self.evaluator_factories:
      raise ExperimentError(
        "Evaluators of one's own are not run: evaluator_factories must be "
        "None, or empty for no evaluation."
      )
    if not 0 <= self.seed < 2**32:
      raise ValueError(f"seed must be in [0, 2^32), got {self.seed}.")

  @property
  def title(self) -> str:
    """What the run is called where it is shown: its task, if it says one."""
    return str(self.description.get("task", type(self.builder).__name__))


@dataclasses.dataclass(frozen=True)
class EvaluationSchedule:
  """When a run is evaluated: every so many environment steps, and at its end.

  Attributes:
    every: environment steps between evaluations, positive.
    num_episodes: episodes of each evaluation; 0 for no evaluation.
    total_steps: environment steps of the whole run.
  """

  every: int
  num_episodes: int
  total_steps: int

  def __post_init__(self):
    if self.every < 1:
      raise ValueError(f"eval_every must be positive, got {self.every}.")
    if self.num_episodes < 0:
      raise ValueError(
        f"num_eval_episodes must not be negative, got {self.num_episodes}."
      )

  def is_due(self, actor_steps: int, evaluated_at: int) -> bool:
    """Whether it is time for an evaluation.

    Args:
      actor_steps: environment steps made; the last ones only once all that was
        to be learned of them is learned.
      evaluated_at: those at the last evaluation, -1 for none.
    """
    if not self.num_episodes or actor_steps <= max(evaluated_at, 0):
      return False
    return (
      actor_steps >= self.total_steps
      or actor_steps // self.every > max(evaluated_at, 0) // self.every
    )
