"""What an engine needs to know to run an experiment in many processes."""

import dataclasses
import pathlib

from acme_qsm.distributed.coordination.run_coordinator import CoordinatorConfig


@dataclasses.dataclass(frozen=True)
class Plan:
  """A distributed run, before any of its processes is started.

  Attributes:
    coordinator: what its coordinator is told.
    run: the pickled `DistributedRun` that the other processes are told; opaque
      here: an engine loads nothing of what the processes need.
    log_folder: where each process's output goes, as `<name>.log`; None for
      nowhere in particular.
  """

  coordinator: CoordinatorConfig
  run: bytes
  log_folder: pathlib.Path | None

  @property
  def key(self) -> bytes:
    """What the run's processes know each other by."""
    return self.coordinator.key

  @property
  def actors(self) -> tuple[str, ...]:
    """The actors' names."""
    return tuple(f"actor_{i}" for i in range(self.coordinator.num_actors))

  @property
  def others(self) -> tuple[str, ...]:
    """The names of the processes that neither act nor coordinate."""
    evaluator = ("evaluator",) if self.coordinator.evaluates else ()
    return ("replay", "learner", *evaluator)
