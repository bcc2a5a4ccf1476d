"""The learner's parameters on their way to who acts."""

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
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError

_VARIABLES_SECONDS = 30.0


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
  """Answers who asks for parameters; each of them is encoded once."""

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
    self._encodings: dict[tuple[str, ...], _Encoding] = {}

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
    with self._lock:
      encoding = self._encodings.setdefault(tuple(names), _Encoding())
    if not encoding.holds(wanted):
      # Who asks while the learner steps waits for one that is made after that:
      # the same for all who wait, and others with other names do not.
      with encoding.lock:
        if not encoding.holds(wanted):
          # First: what is fetched after that is as new, or newer.
          version = self._version()
          values = jax.device_get(self._source.get_variables(names))
          encoding.latest = (
            version,
            pickle.dumps(values, protocol=pickle.HIGHEST_PROTOCOL),
          )
    return encoding.latest

  def _version(self) -> Version:
    return Version(self._learner, self._steps())


class _Encoding:
  """Parameters of some names, encoded.

  Attributes:
    lock: who holds it encodes them anew.
    latest: the last ones; at first older than any.
  """

  def __init__(self):
    self.lock = threading.Lock()
    self.latest: tuple[Version, bytes] = (Version("", -1.0), b"")

  def holds(self, version: Version) -> bool:
    """Whether the last ones are as new as that, or newer."""
    return self.latest[0].steps >= version.steps


class RemoteVariables:
  """The learner's parameters; the last ones again if it does not answer.

  Attributes:
    learner_steps: the learner steps behind the last ones.
  """

  def __init__(self, run: Run, link: Link, *, wait: bool = False):
    """Initialises the source; it connects when it is first asked.

    Args:
      run: the run.
      link: this process's link.
      wait: whether to wait for a learner that does not answer, rather than do
        with what there is.
    """
    self._run = run
    self._link = link
    self._wait = wait
    self._client: rpc.Client | None = None
    self._last: dict[tuple[str, ...], tuple[Version, list[Any]]] = {}
    self.learner_steps = 0.0

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Asks the learner; see `VariableSource`."""
    key = tuple(names)
    while True:
      try:
        self._fetch(key)
        return self._last[key][1]
      except ConnectionError as error:
        logging.warning("The learner does not answer: %s", error)
        # It may be elsewhere by now.
        self._client = None
        if key in self._last and not self._wait:
          return self._last[key][1]
        time.sleep(POLL_SECONDS)

  def _fetch(self, key: tuple[str, ...]) -> None:
    if self._client is None:
      address = self._link.wait_for("learner")
      if address is None:
        raise RunIsOverError
      self._client = rpc.Client(address, self._run.key, _VARIABLES_SECONDS)
    have, values = self._last.get(key, (None, []))
    version, encoded = self._client.call("variables", list(key), have)
    if encoded is not None:
      values = pickle.loads(encoded)
    self._last[key] = version, values
    self.learner_steps = version.steps
