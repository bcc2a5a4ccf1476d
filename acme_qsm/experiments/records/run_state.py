"""What a run's checkpoint says of the run, whichever launcher wrote it."""

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

  @property
  def counter(self) -> dict[str, dict[str, float]]:
    """The counts as Acme's counter restores them."""
    return {"counts": dict(self.counts), "cache": {}}

  def to_metadata(self) -> dict[str, Any]:
    """The metadata of a checkpoint, for JSON."""
    return {
      "actor_steps": self.actor_steps,
      "evaluated_at": self.evaluated_at,
      "counter": self.counter,
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
