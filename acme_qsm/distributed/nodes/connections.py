"""What a process is connected to: replay, and the learner's parameters."""

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import reverb
from acme import core

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError
from acme_qsm.replay import reverb_server

_VARIABLES_SECONDS = 30.0


class ReplayConnection:
  """A run's replay, as far as one of its processes is connected to it.

  Reverb's clients connect to an address again and again, whoever answers there.
  So whether the replay that was there still lives is seen from a tie to it.
  """

  def __init__(
    self, run: Run, link: Link, on_loss: Callable[[], None] = lambda: None
  ):
    """Connects, once it is this run's replay that answers.

    Args:
      run: the run.
      link: this process's link.
      on_loss: called, from a thread, when replay is gone.

    Raises:
      RunIsOverError: if the run is to end before.
    """
    self._link = link
    while True:
      address = link.wait_for("replay")
      if address is None:
        raise RunIsOverError
      try:
        # First, so that who is checked is who is tied to.
        self._tie = rpc.Tie(
          link.orders.addresses["replay_tie"], run.key, on_loss
        )
        self._client = reverb_server.connect(address, run.run_id)
        return
      except ConnectionError as error:
        logging.warning("%s", error)
        time.sleep(POLL_SECONDS)

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


class RemoteVariables(core.VariableSource):
  """The learner's parameters; the last ones again if it does not answer.

  Attributes:
    learner_steps: the learner steps behind the last ones.
  """

  def __init__(self, run: Run, link: Link):
    self._run = run
    self._link = link
    self._client: rpc.Client | None = None
    self._last: dict[tuple[str, ...], list[Any]] = {}
    self.learner_steps = 0.0

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Asks the learner; see `VariableSource`."""
    key = tuple(names)
    while True:
      try:
        if self._client is None:
          address = self._link.wait_for("learner")
          if address is None:
            raise RunIsOverError
          self._client = rpc.Client(address, self._run.key, _VARIABLES_SECONDS)
        values, self.learner_steps = self._client.call("variables", list(names))
        self._last[key] = values
        return values
      except ConnectionError as error:
        logging.warning("The learner does not answer: %s", error)
        # It may be elsewhere by now.
        self._client = None
        if key in self._last:
          return self._last[key]
        time.sleep(POLL_SECONDS)
