"""The learner's parameters on their way to actors and the evaluator."""

import logging
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax

from acme_qsm.agents.actor import VariableSource
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.distributed_run import DistributedRun

_VARIABLES_SECONDS = 30.0
_RETRY_SECONDS = 0.2


class Version(NamedTuple):
  """Which parameters they are.

  Attributes:
    learner: tells the learner's process from one before it, which may have
      been as far with other parameters.
    steps: the learner steps behind them, at least.
  """

  learner: str
  steps: float


class PublishedVariables:
  """Answers processes that ask for parameters; each are encoded once."""

  def __init__(self, source: VariableSource, steps: Callable[[], float]):
    """Initialises the publication.

    Args:
      source: the learner; it may step meanwhile.
      steps: tells the learner steps made.
    """
    self._source = source
    self._steps = steps
    self._learner = uuid.uuid4().hex
    self._lock = threading.Lock()
    self._latest: dict[tuple[str, ...], tuple[Version, bytes]] = {}

  def get(
    self, names: Sequence[str], have: Version | None
  ) -> tuple[Version, bytes | None]:
    """Answers a request; from any thread.

    Args:
      names: of the parameters, as the learner knows them.
      have: the version of those that the caller has.

    Returns:
      The version of the newest, and them; None if the caller has them.
    """
    wanted = self._version()
    if have == wanted:
      return wanted, None
    # All that ask while parameters are encoded are answered with the next ones.
    with self._lock:
      latest = self._latest.get(tuple(names))
      if latest is None or latest[0].steps < wanted.steps:
        # The version comes first: what is fetched after that is as new, or
        # newer.
        version = self._version()
        values = jax.device_get(self._source.get_variables(names))
        encoded = pickle.dumps(values, protocol=pickle.HIGHEST_PROTOCOL)
        latest = self._latest[tuple(names)] = version, encoded
      return latest

  def _version(self) -> Version:
    return Version(self._learner, self._steps())


def connect(run: DistributedRun, link: Link) -> rpc.Client:
  """Makes a client of the learner, once there is one.

  Raises:
    RunIsOverError: if the run is to end before.
  """

  def connect_now() -> rpc.Client:
    address = link.address_of("learner")
    assert address is not None
    return rpc.Client(address, run.key, _VARIABLES_SECONDS)

  return link.reach("learner", connect_now)


class RemoteVariables:
  """The learner's parameters; the last ones again if it does not answer.

  Attributes:
    learner_steps: the learner steps behind the last ones.
  """

  def __init__(self, connect: Callable[[], rpc.Client], *, wait: bool = False):
    """Initialises the source; it connects when it is first asked.

    Args:
      connect: connects to the learner, wherever it is by then.
      wait: whether to wait for a learner that does not answer, rather than do
        with what there is.
    """
    self._connect = connect
    self._wait = wait
    self._client: rpc.Client | None = None
    self._last: dict[tuple[str, ...], tuple[Version, list[Any]]] = {}
    self.learner_steps = 0.0

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Asks the learner; see `VariableSource`."""
    key = tuple(names)
    while True:
      try:
        return self._fetch(key)
      except ConnectionError as error:
        logging.warning("The learner does not answer: %s", error)
        self._client = None
        if key in self._last and not self._wait:
          return self._last[key][1]
        time.sleep(_RETRY_SECONDS)

  def _fetch(self, names: tuple[str, ...]) -> list[Any]:
    if self._client is None:
      self._client = self._connect()
    have, values = self._last.get(names, (None, []))
    version, encoded = self._client.call("variables", list(names), have)
    if encoded is not None:
      values = pickle.loads(encoded)
    self._last[names] = version, values
    self.learner_steps = version.steps
    return values
