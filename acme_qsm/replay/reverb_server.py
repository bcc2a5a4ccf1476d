"""Reverb servers: beside a run's other processes, and within its only one."""

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dataclasses
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import reverb
from reverb import errors as reverb_errors
from reverb.cc import schema_pb2

from acme_qsm.replay import embedded
from acme_qsm.replay import reverb_tables
from acme_qsm.replay.listening import addresses
from acme_qsm.replay.listening import bind
from acme_qsm.replay.listening.addresses import LOOPBACK

# A window is wide from so many inserts to each side of its middle on.
_WIDE_INSERTS = 16
# Sent but not yet confirmed, at most, when a server is filled.
_ITEMS_IN_FLIGHT = 100


class ReplayServer:
  """A Reverb server on one address, whose content can be checkpointed."""

  def __init__(
    self,
    tables: Sequence[reverb.Table],
    staging: pathlib.Path | None = None,
    checkpoint: pathlib.Path | None = None,
    host: str = LOOPBACK,
    port: int | None = None,
    run_id: str = "",
  ):
    """Starts the server.

    Args:
      tables: the tables; the first one is what `info` and `size` are about.
      staging: an own folder, for Reverb to write checkpoints to; None to write
        none.
      checkpoint: a folder that `save` or an embedded replay wrote, to start
        from; what the latter holds is inserted, which takes a while.
      host: the IP address of this machine to listen on.
      port: the port; None for a free one.
      run_id: the run's, by which `connect` knows the server; empty for none.

    Raises:
      RuntimeError: if the checkpoint holds other tables than those given.
      ValueError: if the address or port cannot be had, or an embedded replay's
        checkpoint is damaged or does not fit.
    """
    content = None
    if checkpoint is not None and embedded.wrote(checkpoint):
      content, checkpoint = embedded.read(checkpoint), None
      tables = [_going_on_from(tables[0], content), *tables[1:]]
    checkpointer = None
    if staging is not None:
      shutil.rmtree(staging, ignore_errors=True)
      staging.mkdir(parents=True)
      checkpointer = reverb.checkpointers.DefaultCheckpointer(
        str(staging),
        fallback_checkpoint_path=str(checkpoint) if checkpoint else None,
      )
    with bind.listening_on(host, port):
      self._server = reverb.Server(
        [*tables, *_identity_tables(run_id)],
        port=port,
        checkpointer=checkpointer,
      )
    self.address = addresses.join(host, self._server.port)
    self.client = reverb.Client(self.address)
    self._table = tables[0]
    self._staging = staging
    self._restored = checkpoint is not None
    if content is not None:
      _fill(self.client, self._table, content.rows())

  def info(self):
    """Reverb's `TableInfo` of the (first) table."""
    # A table answers ten times as fast as the server. A server that starts from
    # a checkpoint has other tables than it was given, though.
    if self._restored:
      return self.client.server_info()[self._table.name]
    return self._table.info

  def num_inserts(self) -> int:
    """The inserts ever made into the (first) table."""
    if self._restored:
      info = self.info()
    else:
      # Most of the time of `Table.info` goes into the signature.
      info = schema_pb2.TableInfo.FromString(  # pyright: ignore[reportAttributeAccessIssue]
        self._table.internal_table.info()
      )
    return info.rate_limiter_info.insert_stats.completed

  def num_samples(self) -> int:
    """The samples ever taken from the (first) table."""
    return self.info().rate_limiter_info.sample_stats.completed

  def size(self) -> int:
    """The number of items in the (first) table."""
    return self.info().current_size

  def save(
    self, folder: pathlib.Path, previous: pathlib.Path | None = None
  ) -> None:
    """Writes its content to a new folder: see the function `save`.

    Args:
      folder: where to.
      previous: where an earlier save is, which Reverb makes no use of.
    """
    del previous
    assert self._staging is not None
    save(self.client, self._staging, folder)

  def stop(self) -> None:
    """Stops the server."""
    self._server.stop()


class WrongServerError(ConnectionError):
  """A replay server belongs to another run."""


def connect(address: str, run_id: str, timeout: int = 10) -> reverb.Client:
  """Connects to a run's server.

  Args:
    address: the server's, as host:port.
    run_id: the run's.
    timeout: seconds to wait for an answer.

  Returns:
    Its client.

  Raises:
    ConnectionError: if nobody answers.
    WrongServerError: if the server is another run's.
  """
  client = reverb.Client(address)
  try:
    tables = client.server_info(timeout=timeout)
  except (RuntimeError, reverb_errors.ReverbError) as error:
    raise ConnectionError(
      f"No answer from replay at {address}: {error}"
    ) from error
  if any(table.name not in tables for table in _identity_tables(run_id)):
    raise WrongServerError(
      f"The Reverb server at {address} belongs to another run."
    )
  return client


def _identity_tables(run_id: str) -> list[reverb.Table]:
  """An empty table whose name tells the run: Reverb has no other name tag."""
  if not run_id:
    return []
  return [
    reverb.Table(
      name=f"run_{run_id}",
      sampler=reverb.selectors.Fifo(),
      remover=reverb.selectors.Fifo(),
      max_size=1,
      rate_limiter=reverb.rate_limiters.MinSize(1),
    )
  ]


def staging_folder(path: pathlib.Path) -> pathlib.Path:
  """Where the server of the run in a work directory writes checkpoints to."""
  return path / "checkpoints" / ".replay"


def save(
  client: reverb.Client, staging: pathlib.Path, folder: pathlib.Path
) -> None:
  """Writes a server's content to a new folder.

  Args:
    client: the server's client.
    staging: the server's own folder.
    folder: where to, on the same file system.

  Raises:
    OSError: if the server cannot write it, or it cannot be moved there.
  """
  try:
    try:
      written = client.checkpoint()
    except Exception as error:
      # Reverb raises RuntimeError, or, for want of room, IndexError.
      raise OSError(f"Reverb cannot write replay: {error}") from error
    os.rename(written, folder)
  except BaseException:
    # Reverb leaves what it had written before the disk was full.
    for half in staging.glob("*"):
      shutil.rmtree(half, ignore_errors=True)
    raise


class LocalReplay(ReplayServer):
  """A server in the process that learns and acts in turn.

  One thread inserts and samples, so that a rate limiter that blocked an insert
  would block the run for ever: a table with a narrow window gets one without an
  upper end. The loop asks `num_samples_due` how many samples to take, and so
  never reaches the ends of a wide window. A wide one stays as it is, because a
  checkpoint holds the limiter, and a run in many processes may go on from it.
  """

  def __init__(
    self,
    tables: Sequence[reverb.Table],
    staging: pathlib.Path | None = None,
    checkpoint: pathlib.Path | None = None,
    run_id: str = "",
  ):
    """Starts the server: see `ReplayServer`."""
    super().__init__(
      [_without_insert_blocking(table) for table in tables],
      staging,
      checkpoint,
      run_id=run_id,
    )
    # After an embedded replay's checkpoint, the window has been moved.
    shift = (
      self.info().rate_limiter_info.min_diff
      - tables[0].info.rate_limiter_info.min_diff
    )
    pace = reverb_tables.get_pace(tables[0])
    self._pace = dataclasses.replace(pace, middle=pace.middle + shift)

  def num_samples_due(self) -> float:
    """How many samples the inserts so far call for, 0 below the least size."""
    return self._pace.num_samples_due(self.num_inserts())


def _going_on_from(
  table: reverb.Table, content: embedded.EmbeddedReplay
) -> reverb.Table:
  """The table, of which as many samples are due as were due of `content`.

  A new table counts inserts and samples from 0. Its limiter's window is moved,
  so that this holds once the table is filled with the content.
  """
  per_item = _transitions_per_item(table, content.bytes_per_transition // 4)
  limiter = table.info.rate_limiter_info
  ratio = limiter.samples_per_insert
  difference = content.num_inserts() / per_item * ratio - content.num_samples()
  num_items = min(content.size() // per_item, table.info.max_size)
  shift = num_items * ratio - difference
  return _with_window(table, limiter.min_diff + shift, limiter.max_diff + shift)


def _fill(client: reverb.Client, table: reverb.Table, rows: np.ndarray) -> None:
  """Inserts transitions [N, D], as many of the newest as fit in whole items."""
  per_item = _transitions_per_item(table, rows.shape[1])
  num_items = min(len(rows) // per_item, table.info.max_size)
  items = rows[len(rows) - num_items * per_item :].reshape(num_items, -1)
  with client.trajectory_writer(num_keep_alive_refs=1) as writer:
    for item in items:
      reverb_tables.write_item(writer, table.name, item, _ITEMS_IN_FLIGHT)
    writer.flush()


def _transitions_per_item(table: reverb.Table, row_size: int) -> int:
  signature: Any = table.info.signature
  (item_size,) = signature.shape
  per_item, rest = divmod(item_size, row_size)
  if rest or not per_item:
    raise ValueError(
      f"Replay's transitions are of {row_size} numbers, which do not make up "
      f"an item of {item_size}."
    )
  return per_item


def _without_insert_blocking(table: reverb.Table) -> reverb.Table:
  pace = reverb_tables.get_pace(table)
  if pace.half_width >= _WIDE_INSERTS * pace.samples_per_insert:
    return table
  min_diff = table.info.rate_limiter_info.min_diff
  return _with_window(table, min_diff, sys.float_info.max)


def _with_window(
  table: reverb.Table, min_diff: float, max_diff: float
) -> reverb.Table:
  """The same table, whose limiter holds the difference in another window."""
  limiter = table.info.rate_limiter_info
  return table.replace(
    rate_limiter=reverb.rate_limiters.RateLimiter(
      samples_per_insert=limiter.samples_per_insert,
      min_size_to_sample=limiter.min_size_to_sample,
      min_diff=min_diff,
      max_diff=max_diff,
    )
  )
