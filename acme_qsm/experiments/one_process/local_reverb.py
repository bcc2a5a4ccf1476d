"""Reverb as the replay of a run in one process."""

import functools
import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from acme_qsm.experiments.records.checkpointing import Checkpoint
from acme_qsm.experiments.records.workdir import Workdir
from acme_qsm.replay import memory_limit
from acme_qsm.replay import reverb_server


def prepare(
  tables: Sequence[Any],
) -> "Callable[[Workdir | None, Checkpoint | None], ReverbReplay]":
  """Makes a server ready to start.

  Args:
    tables: its tables.

  Returns:
    (the run's work directory, the checkpoint to go on from) -> the replay,
    started.

  Raises:
    ValueError: if the (first) table does not hold samples per insert, or memory
      does not hold the tables.
  """
  reverb_server.require_ratio(tables[0])
  size = sum(table.info.max_size for table in tables)
  content = sum(reverb_server.max_bytes(table) for table in tables)
  memory_limit.require_memory(
    size, content // size, memory_limit.available_memory()
  )
  return functools.partial(ReverbReplay, tables)


class ReverbReplay(reverb_server.LocalReplay):
  """A Reverb server in this process."""

  def __init__(
    self,
    tables: Sequence[Any],
    workdir: Workdir | None,
    checkpoint: Checkpoint | None,
  ):
    """Starts the server.

    Args:
      tables: the tables.
      workdir: the run's work directory, None to keep no checkpoints.
      checkpoint: the checkpoint to start from.
    """
    self._staging = (
      reverb_server.staging_folder(workdir.path) if workdir else None
    )
    super().__init__(
      tables,
      staging=self._staging,
      checkpoint=checkpoint.path / "replay" if checkpoint else None,
      run_id=workdir.run_id if workdir else "",
    )

  def save(
    self, folder: pathlib.Path, previous: pathlib.Path | None = None
  ) -> None:
    """Writes its content into a new folder; previous is not used."""
    del previous
    assert self._staging is not None
    reverb_server.save(self.client, self._staging, folder)
