"""A replay server in the process that learns and acts in turn."""

import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

import reverb


class LocalReplay:
  """A Reverb server whose content can be part of a checkpoint.

  Since one thread inserts and samples, a rate limiter that blocked inserts
  would stop it for ever: that side of the limiters is lifted. How many samples
  may be taken is the caller's to ask, by `samples_due`.
  """

  def __init__(
    self,
    tables: Sequence[reverb.Table],
    staging: pathlib.Path | None = None,
    checkpoint: pathlib.Path | None = None,
  ):
    """Starts the server.

    Args:
      tables: the tables.
      staging: an own folder, for Reverb to write checkpoints to; None if
        `save_to` is never called.
      checkpoint: a folder that `save_to` wrote, to start from.

    Raises:
      RuntimeError: if the checkpoint holds other tables than those given.
    """
    self._staging = staging
    checkpointer = None
    if staging is not None:
      shutil.rmtree(staging, ignore_errors=True)
      staging.mkdir(parents=True)
      checkpointer = reverb.checkpointers.DefaultCheckpointer(
        str(staging),
        fallback_checkpoint_path=str(checkpoint) if checkpoint else None,
      )
    # The limiter's window is centred on this many samples.
    wanted = tables[0].info.rate_limiter_info
    self._offset = (wanted.max_diff + wanted.min_diff) / 2.0
    tables = [_without_insert_blocking(table) for table in tables]
    self._server = reverb.Server(tables, port=None, checkpointer=checkpointer)
    self.client = reverb.Client(f"localhost:{self._server.port}")
    self._table = tables[0]
    self._restored = checkpoint is not None
    limiter = self._info().rate_limiter_info
    self._samples_per_insert = limiter.samples_per_insert
    self._min_size = limiter.min_size_to_sample

  def _info(self):
    # Ten times as fast as asking the server, but a server that starts from a
    # checkpoint replaces the tables that it was given.
    if self._restored:
      return self.client.server_info()[self._table.name]
    return self._table.info

  def size(self) -> int:
    """The number of items in the (first) table."""
    return self._info().current_size

  def num_samples_due(self) -> float:
    """How many samples the inserts so far call for, 0 below the least size."""
    inserts = self._info().rate_limiter_info.insert_stats.completed
    if inserts < self._min_size:
      return 0.0
    # From the insert that fills replay to its least size on, one share each.
    return (inserts + 1) * self._samples_per_insert - self._offset

  def save_to(self, folder: pathlib.Path) -> None:
    """Writes the tables' content to a new folder on the same file system."""
    assert self._staging is not None
    os.rename(self.client.checkpoint(), folder)

  def stop(self) -> None:
    """Stops the server."""
    self._server.stop()


def require_ratio(table: reverb.Table) -> None:
  """Raises ValueError unless a table's limiter holds samples per insert."""
  limiter = table.info.rate_limiter_info
  if limiter.max_diff >= sys.float_info.max:
    raise ValueError(
      f"The rate limiter of table {table.name!r} must hold samples per insert "
      "(reverb.rate_limiters.SampleToInsertRatio): it sets how many learner "
      "steps follow an environment step."
    )


def _without_insert_blocking(table: reverb.Table) -> reverb.Table:
  limiter = table.info.rate_limiter_info
  return table.replace(
    rate_limiter=reverb.rate_limiters.RateLimiter(
      samples_per_insert=limiter.samples_per_insert,
      min_size_to_sample=limiter.min_size_to_sample,
      min_diff=limiter.min_diff,
      max_diff=sys.float_info.max,
    )
  )
