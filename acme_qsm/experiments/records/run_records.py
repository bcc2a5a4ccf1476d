"""A run's files: checkpoints, logs and curves, if it keeps any."""

import dataclasses
import functools
import logging
import pathlib
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.records import loggers
from acme_qsm.experiments.records import metrics
from acme_qsm.experiments.records.checkpointing import Checkpoint
from acme_qsm.experiments.records.checkpointing import Checkpointer
from acme_qsm.experiments.records.disk import Disk
from acme_qsm.experiments.records.run_state import RunState


@dataclasses.dataclass(frozen=True)
class RunRecords:
  """A run's files.

  Attributes:
    path: the work directory, None to keep nothing but what logger_factory does.
    checkpointing: what the run's configuration says of checkpoints.
    logger_factory: (label, steps_key, instance) -> logger; None for files in
      the work directory.
    disk: says what cannot be written: logs and curves are left out then.
  """

  path: pathlib.Path | None
  checkpointing: CheckpointingConfig | None
  logger_factory: Callable[..., Any] | None = None
  disk: Disk = dataclasses.field(default_factory=Disk)

  @property
  def native_log(self) -> pathlib.Path | None:
    """Where native libraries' output goes."""
    return self.path / "logs" / "native.log" if self.path else None

  def latest_checkpoint(self) -> Checkpoint | None:
    """The checkpoint to go on from, if there is any: see `Checkpointer`."""
    checkpointer = self._checkpointer
    return checkpointer.latest() if checkpointer else None

  def save(
    self,
    learner: Any,
    state: RunState,
    save_replay: Callable[[pathlib.Path, pathlib.Path | None], None],
  ) -> None:
    """Writes a checkpoint, if the run keeps any.

    Args:
      learner: its state is saved.
      state: how far the run is.
      save_replay: (folder, previous) writes replay's content into a new
        folder; previous is where the checkpoint before has it, None at first.

    Raises:
      NonFiniteError: if a number of the learner's is a NaN or an infinity.
      OSError: if it cannot be written.
    """
    checkpointer = self._checkpointer
    if checkpointer is not None:
      checkpointer.save(
        state.actor_steps,
        {"learner": learner.save()},
        state.to_metadata(),
        lambda folder, previous: save_replay(
          folder / "replay", previous / "replay" if previous else None
        ),
      )

  def rewind(self, checkpoint: Checkpoint | None) -> None:
    """Drops what was logged after a checkpoint; without one, all."""
    if self.path is not None:
      steps = RunState.of(checkpoint).actor_steps if checkpoint else -1
      loggers.rewind(self.path, steps)

  def logger(self, label: str, steps_key: str, instance: int = 0) -> Any:
    """Makes a logger: see `loggers.make_logger_factory`."""
    if self.logger_factory is None and self.path is None:
      return metrics.NoLogger()

    name = f"{label}_{instance}" if instance else label
    return loggers.LossyLogger(
      f"{self.path / 'logs' / name}.csv" if self.path else name,
      lambda: self._logger_factory(label, steps_key, instance),
      self.disk,
    )

  def last_evaluation(self) -> int:
    """The environment step of the last evaluation, -1 if there was none."""
    if self.path is None:
      return -1
    table = loggers.read_csv(self.path / "logs" / "evaluator.csv")
    return int([-1, *table.get(ACTOR_STEPS, ())][-1])

  def draw_curve(self, title: str) -> None:
    """Draws the learning curve, if there is room."""
    if self.path is None:
      return
    _draw(
      *(self.disk, self.path / "learning_curve.png"),
      *("plot_learning_curve", self.path, title),
    )

  def save_timer(self) -> "SaveTimer":
    """Says when it is time for the next checkpoint."""
    minutes = (
      self.checkpointing.time_delta_minutes
      if self.path and self.checkpointing
      else float("inf")
    )
    return SaveTimer(60.0 * minutes)

  @functools.cached_property
  def _logger_factory(self) -> Callable[..., Any]:
    """Made once: its loggers share TensorBoard's file."""
    if self.logger_factory is not None:
      return self.logger_factory
    assert self.path is not None
    return loggers.make_logger_factory(self.path)

  @functools.cached_property
  def _checkpointer(self) -> Checkpointer | None:
    """Made once: it knows which checkpoints it has found broken."""
    if self.path is None or self.checkpointing is None:
      return None
    return Checkpointer(
      self.path / "checkpoints", self.checkpointing.max_to_keep
    )


def draw_curves(
  folder: pathlib.Path,
  directories_by_label: Mapping[str, Sequence[pathlib.Path]],
  title: str,
  disk: Disk,
) -> None:
  """Draws several runs in one picture, if there is room.

  Args:
    folder: where to, as `learning_curves.png`.
    directories_by_label: the runs' directories by label.
    title: the picture's title.
    disk: says whether it could be written.
  """
  png = folder / "learning_curves.png"
  _draw(disk, png, "plot_learning_curves", directories_by_label, png, title)


def _draw(disk: Disk, png: pathlib.Path, name: str, *args: Any) -> None:
  """Calls a function of `plotting`, which writes a picture."""
  # Its matplotlib takes long to load, and few processes need it.
  from acme_qsm.experiments.records import plotting

  disk.attempt(str(png), lambda: getattr(plotting, name)(*args))


class SaveTimer:
  """Says when it is time for the next checkpoint."""

  def __init__(self, seconds: float):
    """Starts the timer.

    Args:
      seconds: between checkpoints.
    """
    self._seconds = seconds
    self._saved_at = time.monotonic()

  def is_due(self) -> bool:
    """Whether it is time."""
    return time.monotonic() - self._saved_at >= self._seconds

  def restart(self) -> None:
    """Notes that a checkpoint was tried, whether it could be written or not."""
    self._saved_at = time.monotonic()


def replay_content(checkpoint: Checkpoint | None) -> pathlib.Path | None:
  """The folder of replay's content in a checkpoint; None if there is none.

  A checkpoint without one is warned of.
  """
  if checkpoint is None:
    return None
  content = checkpoint.path / "replay"
  if not content.is_dir():
    logging.warning("The checkpoint has no replay content: it fills anew.")
    return None
  return content


def restore_learner(learner: Any, checkpoint: Checkpoint | None) -> None:
  """Sets a learner to its state in a checkpoint, if there is a checkpoint."""
  if checkpoint is not None:
    learner.restore(checkpoint.load("learner", learner.save()))
