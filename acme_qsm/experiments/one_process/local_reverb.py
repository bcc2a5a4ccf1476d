"""Reverb as the replay of a run in one process."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

from acme_qsm.experiments.records.checkpointing import Checkpoint
from acme_qsm.experiments.records.workdir import Workdir
from acme_qsm.replay import memory_limit
from acme_qsm.replay import reverb_server
from acme_qsm.replay import reverb_tables


def prepare(
  tables: Sequence[Any],
) -> Callable[[Workdir | None, Checkpoint | None], reverb_server.LocalReplay]:
  """Makes a server ready to start.

  Args:
    tables: its tables.

  Returns:
    (the run's work directory, None to keep no checkpoints; the checkpoint to go
    on from) -> the replay, started.

  Raises:
    ValueError: if the (first) table does not hold samples per insert, or memory
      does not hold the tables.
  """
  reverb_tables.require_ratio(tables[0])
  size = sum(table.info.max_size for table in tables)
  content = sum(reverb_tables.max_bytes(table) for table in tables)
  memory_limit.require_memory(
    size, content // size, memory_limit.available_memory()
  )

  def start(
    workdir: Workdir | None, checkpoint: Checkpoint | None
  ) -> reverb_server.LocalReplay:
    return reverb_server.LocalReplay(
      tables,
      staging=reverb_server.staging_folder(workdir.path) if workdir else None,
      checkpoint=checkpoint.path / "replay" if checkpoint else None,
      run_id=workdir.run_id if workdir else "",
    )

  return start
