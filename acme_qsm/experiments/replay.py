"""Reverb servers: beside a run's other processes, and within its only one."""

import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

import reverb

from acme_qsm.experiments import listening


class ReplayServer:
  """A Reverb server on one address, whose content can be checkpointed."""

  def __init__(
    self,
    tables: Sequence[reverb.Table],
    staging: pathlib.Path | None = None,
    checkpoint: pathlib.Path | None = None,
    host: str = listening.LOOPBACK,
    port: int | None = None,
  ):
    """Starts the server.

    Args:
      tables: the tables; the first one is what `info` and `size` are about.
      staging: an own folder, for Reverb to write checkpoints to; None to write
        none.
      checkpoint: a folder that `save` wrote, to start from.
      host: the IP address of this machine to listen on.
      port: the port; None for a free one.

    Raises:
      RuntimeError: if the checkpoint holds other tables than those given.
      ValueError: if the address or port cannot be had.
    """
    checkpointer = None
    if staging is not None:
      shutil.rmtree(staging, ignore_errors=True)
      staging.mkdir(parents=True)
      checkpointer = reverb.checkpointers.DefaultCheckpointer(
        str(staging),
        fallback_checkpoint_path=str(checkpoint) if checkpoint else None,
      )
    with listening.listening_on(host):
      self._server = reverb.Server(
        list(tables), port=port, checkpointer=checkpointer
      )
    self.address = f"{host}:{self._server.port}"
    self.client = reverb.Client(self.address)
    self._table = tables[0]
    self._restored = checkpoint is not None

  def info(self):
    """Reverb's `TableInfo` of the (first) table."""
    # Ten times as fast as asking the server, but a server that starts from a
    # checkpoint replaces the tables that it was given.
    if self._restored:
      return self.client.server_info()[self._table.name]
    return self._table.info

  def size(self) -> int:
    """The number of items in the (first) table."""
    return self.info().current_size

  def stop(self) -> None:
    """Stops the server."""
    self._server.stop()


def save(client: reverb.Client, folder: pathlib.Path) -> None:
  """Writes a server's content to a new folder.

  Args:
    client: of a server with a staging folder, on the same file system.
    folder: where to.
  """
  os.rename(client.checkpoint(), folder)


class LocalReplay(ReplayServer):
  """A server in the process that learns and acts in turn.

  Since one thread inserts and samples, a rate limiter that blocked inserts
  would stop it for ever: that side of the limiters is lifted. How many samples
  may be taken is the caller's to ask, by `num_samples_due`.
  """

  def __init__(
    self,
    tables: Sequence[reverb.Table],
    staging: pathlib.Path | None = None,
    checkpoint: pathlib.Path | None = None,
  ):
    """Starts the server: see `ReplayServer`."""
    # The limiter's window is centred on this many samples.
    limiter = tables[0].info.rate_limiter_info
    self._offset = (limiter.max_diff + limiter.min_diff) / 2.0
    self._samples_per_insert = limiter.samples_per_insert
    self._min_size = limiter.min_size_to_sample
    super().__init__(
      [_without_insert_blocking(table) for table in tables], staging, checkpoint
    )

  def num_samples_due(self) -> float:
    """How many samples the inserts so far call for, 0 below the least size."""
    inserts = self.info().rate_limiter_info.insert_stats.completed
    if inserts < self._min_size:
      return 0.0
    # From the insert that fills replay to its least size on, one share each.
    return (inserts + 1) * self._samples_per_insert - self._offset


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
