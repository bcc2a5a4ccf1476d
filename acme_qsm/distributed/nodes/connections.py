"""A process's connection to replay."""

import logging
from collections.abc import Callable

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import reverb
from reverb import errors as reverb_errors

from acme_qsm.distributed.coordination import liveness
from acme_qsm.replay import reverb_server

_INFO_SECONDS = 10


class ReplayConnection:
  """A run's replay, as far as one of its processes is connected to it.

  Reverb's client connects to its address again and again, and takes whatever
  server answers there. Whether the server that was there still lives is seen
  from a tie to its process.
  """

  def __init__(
    self,
    find: Callable[[str], str | None],
    key: bytes,
    run_id: str,
    on_loss: Callable[[], None] = lambda: None,
  ):
    """Connects to replay where it is announced.

    Args:
      find: tells where "replay" and "replay_tie" are by now, if anywhere.
      key: what the run's processes know each other by.
      run_id: tells this run's replay from another's.
      on_loss: called, from a thread, when replay's process has ended.

    Raises:
      ConnectionError: if this run's replay does not answer there.
    """
    self._find = find
    address, tie = find("replay"), find("replay_tie")
    if address is None or tie is None:
      raise ConnectionError("There is no replay yet.")
    # The tie comes first: if the server that answers next is this run's, it is
    # that of the tied process, or the tie is cut.
    self._tie = liveness.Tie(tie, key)
    try:
      self._client = reverb_server.connect(address, run_id)
    except BaseException:
      self._tie.close()
      raise
    self._tie.watch(on_loss)

  @property
  def lost(self) -> bool:
    """Whether it has ended, or is elsewhere by now."""
    moved = self._find("replay") != self._client.server_address
    return moved or self._tie.cut.is_set()

  @property
  def client(self) -> reverb.Client:
    """Its client; ConnectionError if it is lost."""
    if self.lost:
      raise ConnectionError("Replay is gone.")
    return self._client

  def count(self, table: str) -> tuple[int, int, float] | None:
    """Asks for a table's counts.

    Args:
      table: the table's name; its limiter holds samples per insert.

    Returns:
      Items inserted, samples given, and samples that it would give at once;
      None if replay does not answer.
    """
    try:
      info = self.client.server_info(timeout=_INFO_SECONDS)[table]
    except (
      *(ConnectionError, RuntimeError),
      reverb_errors.ReverbError,
    ) as error:
      logging.warning("Replay does not answer: %s", error)
      return None
    limiter = info.rate_limiter_info
    inserted = limiter.insert_stats.completed
    given = limiter.sample_stats.completed
    held = inserted * limiter.samples_per_insert - limiter.min_diff - given
    if info.current_size < limiter.min_size_to_sample:
      held = 0.0
    return inserted, given, held
