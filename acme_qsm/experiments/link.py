"""A process's link to the coordinator of its run."""

import faulthandler
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from acme_qsm.experiments import rpc
from acme_qsm.experiments.coordinator import ACTOR_STEPS
from acme_qsm.experiments.coordinator import Orders
from acme_qsm.experiments.coordinator import Report

# Exit codes of processes that end themselves.
HUNG = 71
CUT_OFF = 72

_PERIOD_SECONDS = 1.0
# How long the network may be cut, and how long the coordinator may refuse to
# answer, which it does when its process is gone, until a process ends itself.
_CUT_SECONDS = 90.0
_GONE_SECONDS = 5.0
# How long a process may take to end once the run is over.
_END_SECONDS = 5.0


class Link:
  """Reports to the coordinator once a second and keeps its last answer.

  Attributes:
    name: the process's name in the run.
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
    hang_seconds: float = 30.0,
    end_process: Callable[[int], Any] | None = os._exit,
  ):
    """Makes the first report, and starts the thread that makes the others.

    Args:
      name: the process's name in the run.
      coordinator: a client of the coordinator.
      hang_seconds: how long one call of an environment may take.
      end_process: ends this process with an exit code, at once; None where it
        must not be ended, since others live in it too.

    Raises:
      ConnectionError: if the coordinator cannot be reached.
    """
    self.name = name
    self.state = "starting"
    self.totals: dict[str, float] = {}
    self.metrics: dict[str, float] = {}
    self._coordinator = coordinator
    self._incarnation = uuid.uuid4().hex
    self._hang_seconds = hang_seconds
    self._end_process = end_process
    self._called_environment_at: float | None = None
    self._reporting = threading.Lock()
    self._closed = threading.Event()
    self._cut_off = False
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
        dict(self.totals),
        dict(self.metrics),
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
    return self.over or self.orders.interrupting

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
    while not self.ending:
      try:
        address = self._coordinator.call("find", service)
      except ConnectionError:
        address = None
      if address is not None:
        return address
      time.sleep(_PERIOD_SECONDS / 4)
    return None

  def calling_environment(self) -> "_EnvironmentCall":
    """A context in which this process must not stay for too long."""
    return _EnvironmentCall(self)

  def close(self) -> None:
    """Makes a last report and no more."""
    self._closed.set()
    self._thread.join(timeout=10 * _PERIOD_SECONDS)
    try:
      self.report()
    except ConnectionError as error:
      logging.warning("The last report did not arrive: %s", error)

  def _run(self) -> None:
    heard = time.monotonic()
    over_since: float | None = None
    while not self._closed.wait(_PERIOD_SECONDS):
      called_at = self._called_environment_at
      now = time.monotonic()
      if called_at is not None and now - called_at > self._hang_seconds:
        print(
          f"The environment has not answered for {now - called_at:.0f} "
          "seconds. Where it is:",
          file=sys.stderr,
        )
        faulthandler.dump_traceback()
        self._end(HUNG)
        called_at = None
      if self.over:
        over_since = over_since or now
        if now - over_since > _END_SECONDS:
          # It waits for something that will not come, such as room in replay.
          self._end(0)
      try:
        self.report()
        heard = time.monotonic()
      except ConnectionError as error:
        refused = isinstance(error.__cause__, ConnectionRefusedError)
        silence = time.monotonic() - heard
        if silence > (_GONE_SECONDS if refused else _CUT_SECONDS):
          print(
            f"The coordinator has not answered for {silence:.0f} seconds: "
            f"{error}",
            file=sys.stderr,
          )
          self._cut_off = True
          self._end(CUT_OFF)
          return

  def _end(self, code: int) -> None:
    if self._end_process is not None:
      sys.stderr.flush()
      self._end_process(code)


class _EnvironmentCall:
  """Marks a link as calling its environment."""

  def __init__(self, link: Link):
    self._link = link

  def __enter__(self) -> None:
    self._link._called_environment_at = time.monotonic()

  def __exit__(self, *unused_exception) -> None:
    self._link._called_environment_at = None
