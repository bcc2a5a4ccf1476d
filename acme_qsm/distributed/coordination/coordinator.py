"""What the processes of a run share: addresses, counts, and when it ends."""

import dataclasses
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from acme_qsm.distributed.coordination.messages import EVICTED
from acme_qsm.distributed.coordination.messages import GIVEN_UP
from acme_qsm.distributed.coordination.messages import NOT_STARTED
from acme_qsm.distributed.coordination.messages import Orders
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.coordination.messages import Report
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import LEARNER_STEPS

# A learner, a replay or an evaluator that nobody starts again within this time
# is lost.
_SILENCE_SECONDS = 300.0
# So long a process may take to report for the first time; it does so before it
# loads what takes long.
_START_SECONDS = 300.0
# A process that lived for less was a failure in a row; after so many of them it
# is given up.
_STABLE_SECONDS = 60.0
_MAX_FAILURES = 5


@dataclasses.dataclass
class _Node:
  incarnation: str
  state: str
  started_at: float
  last_report: float
  host: str = ""
  pid: int = 0
  totals: dict[str, float] = dataclasses.field(default_factory=dict)
  metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  num_restarts: int = 0
  num_failures: int = 0
  died: bool = False
  given_up: bool = False


class Coordinator:
  """Keeps a run's counts and decides when it ends; for calls from any thread.

  Counts are sums over all processes that ever were, so that they never fall: a
  process reports what it did since it started, and what one that died had
  reported stays.
  """

  def __init__(
    self,
    num_actors: int,
    max_actor_steps: int,
    initial_counts: Mapping[str, float] | None = None,
    *,
    evaluates: bool = True,
    start_seconds: float = _START_SECONDS,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Initialises the coordinator.

    Args:
      num_actors: actors that the run starts with.
      max_actor_steps: environment steps after which actors end; they make more
        until they have heard of that, in about a second.
      initial_counts: what a run that goes on had done before.
      evaluates: whether there is an evaluator to wait for.
      start_seconds: how long a process may take to report for the first time.
      clock: tells the time in seconds.
    """
    self._max_actor_steps = max_actor_steps
    self._start_seconds = start_seconds
    self._clock = clock
    self._started_at = clock()
    self._lock = threading.RLock()
    self._nodes: dict[str, _Node] = {}
    self._actors = {f"actor_{i}" for i in range(num_actors)}
    self._past = dict(initial_counts or {})
    self._addresses: dict[str, str] = {}
    self._phase = Phase.ACTING
    self._interrupting = False
    self._reason = ""
    self._events: list[str] = []
    self._waiting_for = {"learner"} | ({"evaluator"} if evaluates else set())
    self._expected = self._actors | self._waiting_for | {"replay"}
    # Incarnations in whose place others are.
    self._superseded: set[str] = set()

  def announce(self, service: str, address: str) -> None:
    """Says where a service is to be found from now on."""
    with self._lock:
      self._addresses[service] = address

  def report(self, report: Report) -> Orders:
    """Takes note of a process's report and answers it."""
    with self._lock:
      node = self._nodes.get(report.node)
      if report.incarnation in self._superseded:
        return self._make_orders(node, given_up=True)
      if node is None or node.incarnation != report.incarnation:
        node = self._succeed(report, node)
      node.state = report.state
      node.totals = dict(report.totals)
      node.metrics = dict(report.metrics)
      node.last_report = self._clock()
      if (
        self._phase is Phase.ACTING
        and self._counts().get(ACTOR_STEPS, 0) >= self._max_actor_steps
      ):
        self._phase = Phase.LEARNING
      return self._make_orders(node, given_up=node.given_up)

  def _make_orders(self, node: _Node | None, *, given_up: bool) -> Orders:
    return Orders(
      self._phase,
      self._interrupting,
      self._counts(),
      "learner" not in self._waiting_for,
      node.num_restarts if node else 0,
      dict(self._addresses),
      given_up,
    )

  def _succeed(self, report: Report, before: _Node | None) -> _Node:
    """Puts a new process in the place of the one before it, if any."""
    now = self._clock()
    node = _Node(
      report.incarnation, report.state, now, now, report.host, report.pid
    )
    if before is not None:
      self._superseded.add(before.incarnation)
      for name, count in before.totals.items():
        self._past[name] = self._past.get(name, 0) + count
      if not before.died:  # It was killed, and no supervisor told of that.
        failed = before.state != EVICTED
        self.lost(report.node, "its process is gone", failed=failed)
      self._events.append(f"{report.node} was started again.")
      node.num_restarts = before.num_restarts + 1
      node.num_failures = before.num_failures
      node.given_up = before.given_up
    self._nodes[report.node] = node
    return node

  def _counts(self) -> dict[str, float]:
    counts = dict(self._past)
    for node in self._nodes.values():
      for name, count in node.totals.items():
        counts[name] = counts.get(name, 0) + count
      if LEARNER_STEPS in node.metrics:
        counts[LEARNER_STEPS] = node.metrics[LEARNER_STEPS]
    return counts

  def done(self, node: str) -> None:
    """Takes note that the learner or the evaluator has done its last work.

    Args:
      node: "learner", which has saved, or "evaluator".
    """
    with self._lock:
      self._waiting_for.discard(node)
      if self._phase.over:
        return
      if self._interrupting and "learner" not in self._waiting_for:
        self._phase = Phase.INTERRUPTED
      elif self._phase is Phase.LEARNING and not self._waiting_for:
        self._phase = Phase.FINISHED

  def interrupt(self, reason: str) -> None:
    """Has the learner save, and then every process end."""
    with self._lock:
      if not self._phase.over and not self._interrupting:
        self._interrupting = True
        self._reason = reason
        if "learner" not in self._waiting_for:  # It has saved already.
          self._phase = Phase.INTERRUPTED

  def note(self, event: str) -> None:
    """Adds to what has happened, which the run's display shows."""
    with self._lock:
      self._events.append(event)

  def fail(self, reason: str) -> None:
    """Ends the run: it cannot go on."""
    with self._lock:
      if not self._phase.over:
        self._phase = Phase.FAILED
        self._reason = reason

  def lost(
    self, node: str, cause: str, *, failed: bool = True, final: bool = False
  ) -> bool:
    """Takes note that a process has died.

    A run goes on without some of its actors, or without its evaluator, but not
    without others.

    Args:
      node: its name.
      cause: what it died of.
      failed: whether it failed, rather than that somebody told it to end.
      final: whether it is given up, whatever happened before.

    Returns:
      Whether it is given up, and is not to be started again.
    """
    with self._lock:
      now = self._clock()
      lost = self._nodes.setdefault(node, _Node("", NOT_STARTED, now, now))
      # A process that dies before it reports adds to what its last one, which
      # has been told of, left.
      if (
        not lost.died and lost.last_report - lost.started_at >= _STABLE_SECONDS
      ):
        lost.num_failures = 0
      lost.num_failures += failed
      lost.died = True
      given_up = final or lost.num_failures >= _MAX_FAILURES
      what_next = "is given up" if given_up else "is started again"
      self._events.append(f"{node} died: {cause}. It {what_next}.")
      if not given_up:
        return False
      lost.given_up = True
      if node == "evaluator":
        self.done(node)
      elif node not in self._actors:
        self.fail(f"{node} was given up: {cause}")
      elif all(
        name in self._nodes and self._nodes[name].given_up
        for name in self._actors
      ):
        self.fail(f"all actors were given up; {node} the last: {cause}")
      return True

  def notice_silence(self) -> None:
    """Does without those that have long not been heard of, or ends the run."""
    with self._lock:
      self._give_up_who_never_came()
      silences = {
        name: self._clock() - node.last_report
        for name, node in self._nodes.items()
        if not node.given_up
      }
      for name in ("learner", "replay"):
        silence = silences.get(name, 0.0)
        if silence > _SILENCE_SECONDS:
          self.fail(f"nothing was heard of {name} for {silence:.0f} seconds")
      silence = silences.get("evaluator", 0.0)
      # Once it is done, it has ended.
      if silence > _SILENCE_SECONDS and "evaluator" in self._waiting_for:
        cause = f"nothing was heard of it for {silence:.0f} seconds"
        self.lost("evaluator", cause, final=True)
      actors = [silences[name] for name in self._actors & set(silences)]
      silent = bool(actors) and min(actors) > _SILENCE_SECONDS
      if silent and self._phase is Phase.ACTING:
        self.fail(
          f"nothing was heard of any actor for {_SILENCE_SECONDS:.0f} seconds"
        )

  def _give_up_who_never_came(self) -> None:
    if self._clock() - self._started_at <= self._start_seconds:
      return
    for name in sorted(self._expected - set(self._nodes)):
      if not self._phase.over:
        cause = f"it did not report within {self._start_seconds:g} seconds"
        self.lost(name, cause, final=True)

  def status(self) -> dict[str, Any]:
    """What there is to know of the run, as JSON can hold it.

    Returns:
      phase, reason, counts, and the services' addresses; by each node's name
      where it is, its state, the seconds since it was last heard of, how often
      it was started again, and its metrics; and what happened to nodes, in
      order.
    """
    with self._lock:
      now = self._clock()
      not_started = {
        name: _Node("", NOT_STARTED, now, now) for name in self._expected
      }
      return {
        "phase": self._phase.value,
        "reason": self._reason,
        "counts": self._counts(),
        "addresses": dict(self._addresses),
        "nodes": {
          name: {
            "host": node.host,
            "pid": node.pid,
            "state": GIVEN_UP if node.given_up else node.state,
            "silent_seconds": round(now - node.last_report, 1),
            "restarts": node.num_restarts,
            "metrics": dict(node.metrics),
          }
          for name, node in sorted({**not_started, **self._nodes}.items())
        },
        "events": list(self._events),
      }
