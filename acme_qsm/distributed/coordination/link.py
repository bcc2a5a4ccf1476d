"""A process's link to the coordinator of its run."""

import contextlib
import faulthandler
import logging
import math
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import TypeVar

from acme_qsm.distributed.coordination import liveness
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.messages import EVICTED
from acme_qsm.distributed.coordination.messages import LOADING
from acme_qsm.distributed.coordination.messages import Orders
from acme_qsm.distributed.coordination.messages import Report
from acme_qsm.distributed.processes.supervision import ExitCode

_PERIOD_SECONDS = 1.0
_RETRY_SECONDS = 0.2
# How long the network may be cut, and how long the coordinator may refuse to
# answer, which it does when its process is gone, until a process ends itself.
_CUT_SECONDS = 90.0
_GONE_SECONDS = 5.0
# How long a process may take to end once the run is over.
_END_SECONDS = 5.0
# The same once it was told to end, which may be to save.
_EVICTED_SECONDS = 60.0

_T = TypeVar("_T")


class RunIsOverError(Exception):
  """There is nothing more to do for this process."""


class Deadline:
  """When a call must have ended; the process is ended if it has not."""

  def __init__(self):
    self._at = math.inf

  @contextlib.contextmanager
  def within(self, seconds: float) -> Iterator[None]:
    """A context for a call that may take so many seconds."""
    self._at = time.monotonic() + seconds
    try:
      yield
    finally:
      self._at = math.inf

  def has_passed(self) -> bool:
    """Whether a call has taken too long; true once for each."""
    passed = time.monotonic() > self._at
    if passed:
      self._at = math.inf
    return passed


class Link:
  """Reports to the coordinator once a second and keeps its last answer.

  Attributes:
    name: the process's name in the run.
    host: the IP address of this machine.
    state: what the process is doing, for the next report.
    totals: the process's counts, for the next report.
    metrics: what else there is to show, for the next report.
    orders: the coordinator's last answer.
    deadline: of a call of the process's environment.
  """

  def __init__(
    self,
    name: str,
    coordinator: rpc.Client,
    *,
    host: str = "",
    end_process: Callable[[int], Any] | None = os._exit,
  ):
    """Makes the first report, and starts the thread that makes the others.

    Args:
      name: the process's name in the run.
      coordinator: a client of the coordinator.
      host: the IP address of this machine.
      end_process: ends this process with an exit code, at once; None where it
        must not be ended, since others live in it too.

    Raises:
      ConnectionError: if the coordinator cannot be reached.
    """
    self.name = name
    self.host = host
    # Which is what every process does first.
    self.state = LOADING
    self.totals: dict[str, float] = {}
    self.metrics: dict[str, float] = {}
    self.deadline = Deadline()
    self._coordinator = coordinator
    self._incarnation = uuid.uuid4().hex
    self._end_process = end_process
    self._replay: str | None = None
    self._reporting = threading.Lock()
    self._closed = threading.Event()
    self._cut_off = False
    self._told_to_end = False
    self.orders: Orders = self.report()
    self._thread = threading.Thread(target=self._run, name="link", daemon=True)
    self._thread.start()

  def report(self) -> Orders:
    """Reports now.

    Returns:
      The coordinator's orders.

    Raises:
      ConnectionError: if the coordinator cannot be reached.
    """
    # One at a time, so that an older total never follows a newer one.
    with self._reporting:
      report = Report(
        self.name,
        self._incarnation,
        self.state,
        self.host,
        os.getpid(),
        dict(self.totals),
        dict(self.metrics),
      )
      self.orders = self._coordinator.call("report", report)
    return self.orders

  def count(self, name: str) -> int:
    """A total of all processes of the run, such as `actor_steps`."""
    return int(self.orders.counts.get(name, 0))

  @property
  def over(self) -> bool:
    """Whether this process is to end."""
    return self._cut_off or self.orders.phase.over

  @property
  def ending(self) -> bool:
    """Whether this process is to save what it must, and end."""
    return self.over or self.orders.interrupting or self._told_to_end

  @property
  def evicted(self) -> bool:
    """Whether this process alone is to end, while the run goes on without it.

    Not where the whole run is to end: then each has its part in that.
    """
    return self._told_to_end and not (self.over or self.orders.interrupting)

  def evict(self) -> None:
    """Has this process save what it must, and end; for a signal's handler."""
    self._told_to_end = True

  def call(self, name: str, *args: Any) -> Any:
    """Calls a function of the coordinator: see `rpc.Client.call`."""
    return self._coordinator.call(name, *args)

  def note(self, event: str) -> None:
    """Has an event shown on the run's display, if the coordinator answers."""
    logging.warning("%s", event)
    with contextlib.suppress(ConnectionError, rpc.RemoteError):
      self.call("note", event)

  def address_of(self, service: str) -> str | None:
    """Where "replay", "replay_tie" or "learner" is, by the last answer."""
    return self.orders.addresses.get(service)

  def reach(
    self,
    service: str,
    connect: Callable[[], _T],
    gives_up: Callable[[], bool] | None = None,
  ) -> _T:
    """Connects to a service, once it is announced and answers.

    Args:
      service: "replay" or "learner".
      connect: connects to it, or raises ConnectionError.
      gives_up: asked now and then whether to wait no longer; None to wait until
        this process is to end.

    Returns:
      What `connect` returned.

    Raises:
      RunIsOverError: if it was waited for in vain.
    """
    before, self.state = self.state, f"waiting for {service}"
    try:
      while not (self.ending if gives_up is None else gives_up()):
        try:
          if service in self.report().addresses:
            return connect()
        except ConnectionError as error:
          logging.warning("%s", error)
        time.sleep(_RETRY_SECONDS)
    finally:
      self.state = before
    raise RunIsOverError

  def depend_on_replay(self, address: str) -> None:
    """Has this process end if replay is announced elsewhere."""
    self._replay = address

  def lose_replay(self) -> None:
    """Ends this process, whose replay is gone, unless it is to end anyway."""
    # That is known only from now on where the end came before the next report.
    with contextlib.suppress(ConnectionError, rpc.RemoteError):
      self.report()
    if not self.over:
      print("Replay is gone.", file=sys.stderr)
      self._end(ExitCode.REPLAY_MOVED)

  def close(self) -> None:
    """Makes a last report and no more."""
    if self.evicted:
      self.state = EVICTED
    self._closed.set()
    self._thread.join(timeout=10 * _PERIOD_SECONDS)
    try:
      self.report()
    except (ConnectionError, rpc.RemoteError) as error:
      logging.warning("The last report did not arrive: %s", error)

  def _run(self) -> None:
    """Reports and obeys until the link is closed, or cut off."""
    lifeline = liveness.Lifeline(
      gone_seconds=_GONE_SECONDS, cut_seconds=_CUT_SECONDS
    )
    lifeline.answered()
    ending_since: float | None = None
    while not self._closed.wait(_PERIOD_SECONDS) and not self._cut_off:
      now = time.monotonic()
      if self.deadline.has_passed():
        self._end_a_hung_call()
      ending = self.over or self.evicted
      ending_since = (ending_since or now) if ending else None
      if ending_since is not None:
        # It may wait for what will not come, such as room in replay.
        patience = _END_SECONDS if self.over else _EVICTED_SECONDS
        if now - ending_since > patience:
          self._end(ExitCode.DONE if self.over else ExitCode.EVICTED)
      try:
        self._obey(self.report())
        lifeline.answered()
      except Exception as error:  # Nobody would see that this thread ends.
        if not isinstance(error, ConnectionError):
          logging.exception("The coordinator did not take a report.")
        if lifeline.is_gone(error):
          self._cut_off = True
          print(
            "The coordinator has not answered for "
            f"{lifeline.silence:.0f} seconds: {error}",
            file=sys.stderr,
          )
          self._end(ExitCode.CUT_OFF)

  def _obey(self, orders: Orders) -> None:
    """Ends this process where the run does without it, or replay has moved."""
    replay = orders.addresses.get("replay")
    if orders.given_up:
      self._cut_off = True
      print("This process is given up, or replaced.", file=sys.stderr)
      self._end(ExitCode.DISMISSED)
    elif replay and self._replay and replay != self._replay:
      print(f"Replay is at {replay} by now.", file=sys.stderr)
      self._end(ExitCode.REPLAY_MOVED)

  def _end_a_hung_call(self) -> None:
    # It ends whether or not that can be said.
    with contextlib.suppress(Exception):
      print(
        "The environment has not answered for too long. Where it is:",
        file=sys.stderr,
      )
      faulthandler.dump_traceback()
    self._end(ExitCode.HUNG)

  def _end(self, code: int) -> None:
    if self._end_process is not None:
      sys.stderr.flush()
      self._end_process(code)
