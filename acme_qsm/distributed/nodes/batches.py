"""What the learner learns from: batches from replay, to the last one due."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import reverb
import tensorflow as tf
from reverb import errors as reverb_errors

from acme_qsm.distributed.coordination.link import RunIsOverError
from acme_qsm.distributed.nodes.connections import ReplayConnection

_POLL_SECONDS = 0.2
# After the last environment steps nothing more is waited for once replay, which
# answers, has stood still for so long: while it has nothing more to give, and
# where it could still give something, but does not.
_STILL_SECONDS = 2.0
_STUCK_SECONDS = 60.0
_SHARE_SECONDS = 10.0


class Batches:
  """Batches from replay, fetched ahead; survives a replay that starts again.

  Attributes:
    replay: where they come from.
  """

  def __init__(
    self,
    replay: ReplayConnection,
    reconnect: Callable[[], ReplayConnection],
    make_dataset: Callable[[reverb.Client], Iterator[Any]],
    table: str,
    ends: Callable[[], bool],
    all_acted: Callable[[], bool],
    on_first: Callable[[], None],
  ):
    """Starts to fetch.

    Args:
      replay: where batches come from at first.
      reconnect: connects to replay once it is back, or raises RunIsOverError.
      make_dataset: makes the iterator over batches from a client.
      table: the name of the table that they are from.
      ends: whether the learner is to end, whatever there is to learn from.
      all_acted: whether all environment steps are made.
      on_first: called before the first batch is handed out.
    """
    self._reconnect = reconnect
    self._make_dataset = make_dataset
    self._table = table
    self._ends = ends
    self._all_acted = all_acted
    self._on_first: Callable[[], None] | None = on_first
    self._seconds_waited = 0.0
    self._share, self._share_since = 0.0, time.monotonic()
    self._fetch_from(replay)

  def _fetch_from(self, replay: ReplayConnection) -> None:
    self.replay = replay
    self._stream = _Stream(replay, self._make_dataset, self._ends)

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    start, counts, still_since = time.monotonic(), None, 0.0
    while not self._ends():
      if self.replay.lost:
        self._fetch_from(self._reconnect())
        start = time.monotonic()
      batch = self._stream.get(_POLL_SECONDS)
      now = time.monotonic()
      if batch is not None:
        self._seconds_waited += now - start
        if self._on_first is not None:
          self._on_first()
          self._on_first = None
        return batch
      if not self._all_acted():
        continue
      before, counts = counts, self.replay.count(self._table)
      if counts is None or counts != before:
        still_since = now
        continue
      *_, held = counts
      if now - still_since > (_STUCK_SECONDS if held >= 1 else _STILL_SECONDS):
        break
    raise RunIsOverError

  def waiting_share(self) -> float:
    """The share of time spent waiting, in the last whole stretch of seconds."""
    seconds = time.monotonic() - self._share_since
    if seconds > _SHARE_SECONDS:
      self._share = self._seconds_waited / seconds
      self._seconds_waited, self._share_since = 0.0, time.monotonic()
    return self._share


class _Stream:
  """Batches of one replay, fetched in a thread until that replay is lost."""

  def __init__(
    self,
    replay: ReplayConnection,
    make_dataset: Callable[[reverb.Client], Iterator[Any]],
    ends: Callable[[], bool],
  ):
    self._replay = replay
    self._make_dataset = make_dataset
    self._ends = ends
    self._queue: queue.Queue = queue.Queue(maxsize=1)
    threading.Thread(target=self._fetch, name="batches", daemon=True).start()

  def get(self, seconds: float) -> Any | None:
    """The next batch; None if there is none in time."""
    try:
      batch = self._queue.get(timeout=seconds)
    except queue.Empty:
      return None
    if isinstance(batch, Exception):
      raise batch
    return batch

  def _fetch(self) -> None:
    while not (self._replay.lost or self._ends()):
      try:
        for batch in self._make_dataset(self._replay.client):
          if not self._put(batch):
            return
      except (
        *(tf.errors.OpError, ConnectionError, RuntimeError),
        reverb_errors.ReverbError,
      ) as error:
        logging.warning("Replay does not answer; trying again: %s", error)
        time.sleep(_POLL_SECONDS)
      except Exception as error:  # The learner's to raise.
        self._put(error)
        return

  def _put(self, batch: Any) -> bool:
    """Waits for the learner to take what was put before; False if in vain."""
    # Once replay is lost, another server may be where these batches came from.
    while not (self._replay.lost or self._ends()):
      try:
        self._queue.put(batch, timeout=_POLL_SECONDS)
        return True
      except queue.Full:
        pass
    return False
