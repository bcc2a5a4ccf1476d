"""A process's connection to replay."""

import logging
import time
from collections.abc import Callable
from collections.abc import Mapping

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import reverb

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError
from acme_qsm.replay import reverb_server


class ReplayConnection:
  """A run's replay, as far as one of its processes is connected to it.

  Reverb's clients connect to an address again and again, whoever answers there.
  So whether the replay that was there still lives is seen from a tie to it.
  """

  def __init__(
    self,
    run: Run,
    link: Link,
    *,
    on_loss: Callable[[], None] = lambda: None,
    gives_up: Callable[[], bool] | None = None,
  ):
    """Connects, once it is this run's replay that answers.

    Args:
      run: the run.
      link: this process's link.
      on_loss: called, from a thread, when replay is gone.
      gives_up: asked now and then whether to wait no longer; None to wait until
        the run is to end.

    Raises:
      RunIsOverError: if the run is to end before.
    """
    self._link = link
    with link.waiting_for("replay"):
      while not (link.ending if gives_up is None else gives_up()):
        try:
          addresses = link.report().addresses
          if "replay" in addresses:
            self._connect(addresses, run)
            self._tie.call_when_cut(on_loss)
            return
        except ConnectionError as error:
          logging.warning("%s", error)
        time.sleep(POLL_SECONDS)
    raise RunIsOverError

  def _connect(self, addresses: Mapping[str, str], run: Run) -> None:
    # First, so that who is checked is who is tied to.
    self._tie = rpc.Tie(addresses["replay_tie"], run.key)
    try:
      self._client = reverb_server.connect(addresses["replay"], run.run_id)
    except BaseException:
      self._tie.close()
      raise

  @property
  def lost(self) -> bool:
    """Whether it has ended, or is elsewhere by now."""
    address = self._link.orders.addresses.get("replay")
    return self._tie.cut.is_set() or address != self._client.server_address

  @property
  def client(self) -> reverb.Client:
    """Its client; ConnectionError if it is lost."""
    if self.lost:
      raise ConnectionError("Replay is gone.")
    return self._client
