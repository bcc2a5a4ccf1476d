"""What all processes of a run are told."""

import dataclasses
import functools
import pathlib
from typing import Any

from acme_qsm.experiments.config import EvaluationSchedule
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.records.run_records import RunRecords
from acme_qsm.experiments.run import AgentParts
from acme_qsm.experiments.seeds import Seeds

POLL_SECONDS = 0.2


class RunIsOverError(Exception):
  """There is nothing more to do for this process."""


@dataclasses.dataclass(frozen=True)
class Run:
  """What all processes of a run are told.

  Attributes:
    experiment: what to run.
    environment_spec: its environment's spec.
    schedule: when it is evaluated.
    key: what the run's processes know each other by.
    host: the IP address that this machine's servers listen on.
    path: the work directory, None to keep no files.
    run_id: tells this run's replay from another's.
    hang_seconds: how long one call of an environment may take.
  """

  experiment: ExperimentConfig
  environment_spec: Any
  schedule: EvaluationSchedule
  key: bytes
  host: str
  path: pathlib.Path | None
  run_id: str
  hang_seconds: float

  @functools.cached_property
  def parts(self) -> AgentParts:
    """Makes the agent's parts."""
    return AgentParts(self.experiment, self.environment_spec)

  @functools.cached_property
  def records(self) -> RunRecords:
    """The run's files; it goes on without logs while the disk is full."""
    experiment = self.experiment
    return RunRecords(
      self.path,
      experiment.checkpointing,
      experiment.logger_factory,
    )

  def replay_bytes(self) -> int:
    """The memory that replay takes when it is full; needs Reverb to tell."""
    from acme_qsm.replay import reverb_tables

    return sum(reverb_tables.max_bytes(table) for table in self.parts.tables())

  @property
  def seeds(self) -> Seeds:
    """The seeds of all that is random."""
    return Seeds(self.experiment.seed)
