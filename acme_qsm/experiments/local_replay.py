"""Replay and learning for a run in one process, in turn with acting.

What knows of Reverb is `ReverbReplay` alone.
"""

import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import jax

from acme_qsm.experiments.parts import AgentParts
from acme_qsm.replay import reverb_server


class Replay(Protocol):
  """What the loop asks of replay.

  Attributes:
    client: what an agent's parts reach it by.
  """

  client: Any

  def num_samples_due(self) -> float:
    """The samples that what was inserted so far calls for, in all."""
    ...

  def num_samples(self) -> int:
    """The samples ever taken."""
    ...

  def size(self) -> int:
    """The number of items that it holds."""
    ...

  def save(
    self, folder: pathlib.Path, previous: pathlib.Path | None = None
  ) -> None:
    """Writes its content into a new folder.

    Args:
      folder: the folder.
      previous: where the checkpoint before has it, if there is one.
    """
    ...

  def stop(self) -> None:
    """Ends it."""
    ...


class ReverbReplay(reverb_server.LocalReplay):
  """A Reverb server in this process."""

  def __init__(
    self,
    tables: Sequence[Any],
    workdir: pathlib.Path | None,
    checkpoint: pathlib.Path | None,
    run_id: str,
  ):
    """Starts the server.

    Args:
      tables: the tables.
      workdir: the run's work directory, None to keep no checkpoints.
      checkpoint: a checkpoint's folder, to start from.
      run_id: the run's.
    """
    self._staging = reverb_server.staging_folder(workdir) if workdir else None
    super().__init__(
      tables,
      staging=self._staging,
      checkpoint=checkpoint / "replay" if checkpoint else None,
      run_id=run_id,
    )

  def save(
    self, folder: pathlib.Path, previous: pathlib.Path | None = None
  ) -> None:
    """Writes its content into a new folder; previous is not used."""
    del previous
    assert self._staging is not None
    reverb_server.save(self.client, self._staging, folder)


class Batches:
  """Batches from replay, of which the next can be fetched ahead.

  Attributes:
    num_samples: the samples in the batches that were given out, those before a
      resume included.
  """

  def __init__(self, replay: Replay, parts: AgentParts):
    """Initialises the batches.

    Args:
      replay: where they come from.
      parts: makes the iterator over them.
    """
    self._replay = replay
    self._dataset: Iterator[Any] = parts.dataset(replay.client)
    self._fetched: Any = None
    self._samples_due = 0.0
    # What was on its way to the learner when a run was cut off is lost, but the
    # rate limiter counts it: who waited for it would wait for ever.
    self.num_samples = replay.num_samples()

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    self._fetch()
    batch, self._fetched = self._fetched, None
    self.num_samples += jax.tree.leaves(batch)[0].shape[0]
    return batch

  @property
  def are_due(self) -> bool:
    """Whether a learner step is due, as of the last `prepare`."""
    return self.num_samples < self._samples_due

  def prepare(self) -> None:
    """Looks how many are due by now, and fetches the first of them."""
    self._samples_due = self._replay.num_samples_due()
    if self.are_due:
      self._fetch()

  def _fetch(self) -> None:
    if self._fetched is None:
      self._fetched = next(self._dataset)
