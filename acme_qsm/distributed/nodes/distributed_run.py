"""What all processes of a run are told."""

import dataclasses
from collections.abc import Callable
from typing import Any

from acme_qsm.experiments.records.disk import Disk
from acme_qsm.experiments.records.run_records import RunRecords
from acme_qsm.experiments.run import Run


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributedRun(Run):
  """A run in many processes, as each of them is told of it.

  Attributes:
    key: what the run's processes know each other by.
    host: the IP address that this machine's servers listen on.
    run_id: tells this run's replay from another's.
    hang_seconds: how long one call of an environment may take.
  """

  key: bytes
  host: str
  run_id: str
  hang_seconds: float

  def records(self, note: Callable[[str], Any] | None = None) -> RunRecords:
    """The run's files, which it does without while the disk is full.

    Args:
      note: is told so, in a line; None for a warning in this process's log.
    """
    return RunRecords(
      self.folder,
      self.experiment.checkpointing,
      self.experiment.logger_factory,
      Disk(note),
    )

  def replay_bytes(self) -> int:
    """The memory that replay takes when it is full; needs Reverb to tell."""
    from acme_qsm.replay import reverb_tables

    return sum(reverb_tables.max_bytes(table) for table in self.parts.tables())
