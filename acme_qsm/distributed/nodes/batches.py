"""What the learner learns from: batches from replay, to the last one due."""

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import jax
import tensorflow as tf
from reverb import errors as reverb_errors

from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.coordination.messages import COMPILING
from acme_qsm.distributed.coordination.messages import ENDED_STATES
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.nodes.connections import ReplayConnection
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError

# How long replay may answer and yet give nothing of what it could give; and
# how long what it has given may be on its way.
_STUCK_SECONDS = 60.0
_ON_ITS_WAY_SECONDS = 10.0
# An actor that was not heard of for so long has nothing more to insert.
_LOST_SECONDS = 120.0
_INFO_SECONDS = 10


class Batches:
  """Batches from replay, fetched ahead; survives a replay that starts again.

  Attributes:
    replay: where they come from.
    seconds_waited: how long the learner had to wait for them, in all.
  """

  def __init__(
    self, run: Run, link: Link, gives_up: Callable[[], bool] | None = None
  ):
    """Waits for replay: see `ReplayConnection`."""
    self._run = run
    self._link = link
    self._drain = _Drain(link)
    self._connect(gives_up)
    self._has_given = False
    self.seconds_waited = 0.0

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    start = time.monotonic()
    while True:
      if self._link.ending:
        raise RunIsOverError
      if self.replay.lost:
        self._connect()
        start = time.monotonic()
      batch = self._stream.get(POLL_SECONDS)
      if batch is not None:
        self.seconds_waited += time.monotonic() - start
        if not self._has_given:
          # Of the first one is known what a learner step is to be made for.
          self._link.state, self._has_given = COMPILING, True
        return batch
      if self._link.orders.phase is Phase.LEARNING and self._drain.is_over(
        self._stream
      ):
        raise RunIsOverError

  def _connect(self, gives_up: Callable[[], bool] | None = None) -> None:
    self.replay = ReplayConnection(self._run, self._link, gives_up=gives_up)
    self._stream = _Stream(self._run, self._link, self.replay)


class _Stream:
  """Batches of one replay, fetched in a thread, and how many are to come.

  Attributes:
    batch_size: samples in a batch; 1 until there was one.
    received: samples that have arrived.
  """

  def __init__(self, run: Run, link: Link, replay: ReplayConnection):
    """Starts to fetch."""
    self._run = run
    self._link = link
    self._replay = replay
    self._table: str = run.parts.tables()[0].name
    self._queue: queue.Queue = queue.Queue(maxsize=1)
    self.batch_size = 1
    self.received = 0
    self._given = 0
    # The samples that replay gave to others, by its own count.
    self._samples_before = 0
    threading.Thread(target=self._fetch, name="batches", daemon=True).start()

  def get(self, seconds: float) -> Any | None:
    """The next batch; None if there is none in time."""
    try:
      batch = self._queue.get(timeout=seconds)
    except queue.Empty:
      return None
    if isinstance(batch, Exception):
      raise batch
    self._given += self.batch_size
    return batch

  def num_to_come(self) -> tuple[float, float]:
    """How many more samples there can be, if nothing more is inserted.

    Returns:
      Those that have not come here, and how many of them replay holds still.

    Raises:
      ConnectionError: if replay does not answer.
    """
    try:
      tables = self._replay.client.server_info(timeout=_INFO_SECONDS)
    except (RuntimeError, reverb_errors.ReverbError) as error:
      raise ConnectionError(f"Replay does not answer: {error}") from error
    info = tables[self._table]
    limiter = info.rate_limiter_info
    if (
      info.current_size < limiter.min_size_to_sample
      # It holds no ratio, so nothing is due.
      or limiter.min_diff <= -sys.float_info.max
    ):
      return self.received - self._given, 0.0
    allowed = (
      limiter.insert_stats.completed * limiter.samples_per_insert
      - limiter.min_diff
    )
    return (
      allowed - self._samples_before - self._given,
      allowed - limiter.sample_stats.completed,
    )

  def _fetch(self) -> None:
    while not self._replay.lost and not self._link.over:
      try:
        tables = self._replay.client.server_info(timeout=_INFO_SECONDS)
        statistics = tables[self._table].rate_limiter_info.sample_stats
        self._samples_before = statistics.completed - self.received
        for batch in self._run.parts.dataset(self._replay.client):
          self.batch_size = jax.tree.leaves(batch)[0].shape[0]
          self.received += self.batch_size
          self._put(batch)
          if self._replay.lost or self._link.over:
            return
      except (
        *(tf.errors.OpError, ConnectionError, RuntimeError),
        reverb_errors.ReverbError,
      ) as error:
        logging.warning("Replay does not answer; trying again: %s", error)
        time.sleep(POLL_SECONDS)
      except Exception as error:  # The learner's to raise.
        self._put(error)
        return

  def _put(self, batch: Any) -> None:
    # Once replay is lost, who knows whose batches they are.
    while not self._replay.lost and not self._link.over:
      try:
        self._queue.put(batch, timeout=POLL_SECONDS)
        return
      except queue.Full:
        pass


class _Drain:
  """Judges, once all environment steps are made, whether batches still come.

  By counts: a silence may be a cut of the network.
  """

  def __init__(self, link: Link):
    self._link = link
    self._seen: tuple[float, ...] = ()
    self._seen_at = 0.0

  def is_over(self, stream: _Stream) -> bool:
    """Whether nothing more comes; says so where steps are lost by that."""
    try:
      if not self._actors_have_ended():
        return False
      missing, held = stream.num_to_come()
    except ConnectionError as error:
      logging.warning("The last batches are waited for: %s", error)
      self._seen = ()
      return False
    if missing < stream.batch_size:
      return True
    now = time.monotonic()
    seen = (missing, held, stream.received)
    if seen != self._seen:
      self._seen, self._seen_at = seen, now
      return False
    patience = _STUCK_SECONDS if held >= 1 else _ON_ITS_WAY_SECONDS
    if now - self._seen_at < patience:
      return False
    self._tell(
      f"The last {missing // stream.batch_size:.0f} learner steps are left out:"
      " replay does not give what they need."
    )
    return True

  def _actors_have_ended(self) -> bool:
    """Whether none of them has anything to insert any more."""
    nodes = self._link.call("status")["nodes"]
    return all(
      node["state"] in ENDED_STATES or node["silent_seconds"] > _LOST_SECONDS
      for name, node in nodes.items()
      if name.startswith("actor_")
    )

  def _tell(self, message: str) -> None:
    logging.warning("%s", message)
    self._link.call("note", message)
