"""A process's link to the coordinator of its run."""

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.messages import EVICTED
from acme_qsm.distributed.coordination.messages import LOADING
from acme_qsm.distributed.coordination.messages import Orders
from acme_qsm.distributed.coordination.messages import Report
from acme_qsm.distributed.processes.supervision import ExitCode
from acme_qsm.experiments.counts import ACTOR_STEPS

_PERIOD_SECONDS = 1.0
# How long the network may be cut, and how long the coordinator may refuse to
# answer, which it does when its process is gone, until a process ends itself.
_CUT_SECONDS = 90.0
_GONE_SECONDS = 5.0
# How long a process may take to end once the run is over.
_END_SECONDS = 5.0
# The same once it was told to end, which may be to save.
_EVICTED_SECONDS = 60.0


class Link:
  """Reports to the coordinator once a second and keeps its last answer.

  Attributes:
    name: the process's name in the run.
    host: the IP address of this machine.
    state: what it is doing, for the next report.
    totals: its counts, for the next report.
    metrics: what else there is to show, for the next report.
    orders: the coordinator's last answer.
    step_limit: the total of environment steps up to which an actor may go.
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
    self._coordinator = coordinator
    self._incarnation = uuid.uuid4().hex
    self._end_process = end_process
    self._environment_deadline: float | None = None
    self._replay: str | None = None
    self._reporting = threading.Lock()
    self._closed = threading.Event()
    self._cut_off = False
    self._told_to_end = False
    self.step_limit = 0.0
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
        self.step_limit,
      )
      self.orders = self._coordinator.call("report", report)
      self.step_limit = (
        report.totals.get(ACTOR_STEPS, 0) + self.orders.allowance
      )
    return self.orders

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

  def wait_for(self, service: str) -> str | None:
    """Waits until a service is announced.

    Args:
      service: "replay" or "learner".

    Returns:
      Its address; None if the run is to end before there is one.
    """
    with self.waiting_for(service):
      while not self.ending:
        try:
          address = self.report().addresses.get(service)
        except ConnectionError:
          address = None
        if address is not None:
          return address
        time.sleep(_PERIOD_SECONDS / 4)
    return None

  @contextlib.contextmanager
  def waiting_for(self, service: str) -> Iterator[None]:
    """A context in which this process is shown to wait for a service."""
    before = self.state
    self.state = f"waiting for {service}"
    try:
      yield
    finally:
      self.state = before

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

  def calling_environment(self, seconds: float) -> "_EnvironmentCall":
    """A context after so many seconds in which this process is ended."""
    return _EnvironmentCall(self, seconds)

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
    lifeline = rpc.Lifeline(
      gone_seconds=_GONE_SECONDS, cut_seconds=_CUT_SECONDS
    )
    lifeline.answered()
    over_since = evicted_since = None
    while not self._closed.wait(_PERIOD_SECONDS):
      deadline = self._environment_deadline
      now = time.monotonic()
      if deadline is not None and now > deadline:
        self._environment_deadline = None
        # It ends whether or not that can be said.
        with contextlib.suppress(Exception):
          print(
            "The environment has not answered for too long. Where it is:",
            file=sys.stderr,
          )
          faulthandler.dump_traceback()
        self._end(ExitCode.HUNG)
      if self.over:
        over_since = over_since or now
        if now - over_since > _END_SECONDS:
          # It waits for something that will not come, such as room in replay.
          self._end(ExitCode.DONE)
      elif self.evicted:
        evicted_since = evicted_since or now
        if now - evicted_since > _EVICTED_SECONDS:
          self._end(ExitCode.EVICTED)
      try:
        orders = self.report()
        lifeline.answered()
        if orders.given_up:
          print("This process is given up, or replaced.", file=sys.stderr)
          self._cut_off = True
          self._end(ExitCode.DISMISSED)
          return
        replay = orders.addresses.get("replay")
        if replay and self._replay and replay != self._replay:
          print(f"Replay is at {replay} by now.", file=sys.stderr)
          self._end(ExitCode.REPLAY_MOVED)
      except Exception as error:  # Nobody would see that this thread ends.
        if not isinstance(error, ConnectionError):
          logging.exception("The coordinator did not take a report.")
        if lifeline.is_gone(error):
          print(
            "The coordinator has not answered for "
            f"{lifeline.silence:.0f} seconds: {error}",
            file=sys.stderr,
          )
          self._cut_off = True
          self._end(ExitCode.CUT_OFF)
          return

  def _end(self, code: int) -> None:
    if self._end_process is not None:
      sys.stderr.flush()
      self._end_process(code)


class _EnvironmentCall:
  """Marks a link as calling its environment."""

  def __init__(self, link: Link, seconds: float):
    self._link = link
    self._seconds = seconds

  def __enter__(self) -> None:
    self._link._environment_deadline = time.monotonic() + self._seconds

  def __exit__(self, *unused_exception) -> None:
    self._link._environment_deadline = None
