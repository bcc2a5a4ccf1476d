"""What all processes of a run are told."""

import dataclasses
import pathlib
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import jax
import numpy as np
from acme.utils import loggers as acme_loggers

from acme_qsm.distributed.coordination.coordinator import ACTOR_STEPS
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.records import loggers
from acme_qsm.experiments.records.checkpointing import Checkpointer

POLL_SECONDS = 0.2
ACTOR, EVALUATOR, LEARNER = range(3)
"""First parts of the purposes that a run's seeds are for."""


class RunIsOverError(Exception):
  """There is nothing more to do for this process."""


@dataclasses.dataclass(frozen=True)
class Run:
  """What all processes of a run are told.

  Attributes:
    experiment: what to run.
    environment_spec: its environment's spec.
    title: what the run is called where it is shown.
    eval_every: environment steps between evaluations.
    num_eval_episodes: episodes of each evaluation; 0 for none.
    key: what the run's processes know each other by.
    host: the IP address that this machine's servers listen on.
    path: the work directory, None to keep no files.
    run_id: tells this run's replay from another's.
    hang_seconds: how long one call of an environment may take.
  """

  experiment: ExperimentConfig
  environment_spec: Any
  title: str
  eval_every: int
  num_eval_episodes: int
  key: bytes
  host: str
  path: pathlib.Path | None
  run_id: str
  hang_seconds: float

  def checkpointer(self) -> Checkpointer | None:
    """What the run's checkpoints are written and found with, if it has any."""
    if self.path is None or self.experiment.checkpointing is None:
      return None
    return Checkpointer(
      self.path / "checkpoints", self.experiment.checkpointing.max_to_keep
    )

  def logger(self, *args: Any) -> Any:
    """Makes a logger from (label, steps_key, instance)."""
    factory, path = self.experiment.logger_factory, self.path
    if factory is not None:
      return loggers.LossyLogger(lambda: factory(*args))
    if path is not None:
      return loggers.LossyLogger(
        lambda: loggers.make_logger_factory(path)(*args)
      )
    return acme_loggers.NoOpLogger()

  def random_key(self, *purpose: int) -> jax.Array:
    """A PRNG key of its own for each purpose."""
    return jax.random.PRNGKey(self.seed(*purpose))

  def seed(self, *purpose: int) -> int:
    """A seed of its own for each purpose."""
    sequence = np.random.SeedSequence([self.experiment.seed, *purpose])
    return int(sequence.generate_state(1)[0])

  def last_evaluation(self) -> int:
    """The environment step of the last evaluation, -1 if there was none."""
    path = self.path / "logs" / "evaluator.csv" if self.path else None
    if path is None or not path.exists():
      return -1
    steps = loggers.read_csv(path).get(ACTOR_STEPS, np.zeros(0))
    return int(steps[-1]) if len(steps) else -1
