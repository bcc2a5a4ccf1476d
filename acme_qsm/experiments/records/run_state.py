"""What a checkpoint says of a run, in one process or in many."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from acme_qsm.experiments.records.checkpointing import Checkpoint


@dataclasses.dataclass(frozen=True)
class RunState:
  """How far a run is.

  Attributes:
    actor_steps: environment steps made.
    evaluated_at: the environment step of the last evaluation, -1 for none.
    counts: all that is counted, by name.
  """

  actor_steps: int = 0
  evaluated_at: int = -1
  counts: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def to_metadata(self) -> dict[str, Any]:
    """The metadata of a checkpoint, for JSON."""
    return {
      "actor_steps": self.actor_steps,
      "evaluated_at": self.evaluated_at,
      "counter": {"counts": dict(self.counts)},
    }

  @classmethod
  def of(cls, checkpoint: Checkpoint | None) -> "RunState":
    """Reads it from a checkpoint; a run without one is at its start."""
    if checkpoint is None:
      return cls()
    metadata = checkpoint.metadata
    return cls(
      actor_steps=metadata["actor_steps"],
      evaluated_at=metadata["evaluated_at"],
      counts=metadata["counter"]["counts"],
    )
