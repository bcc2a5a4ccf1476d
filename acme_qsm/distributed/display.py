"""What is shown of a run in many processes."""

import collections
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from acme_qsm.distributed.coordination.messages import ENDED_STATES
from acme_qsm.experiments.counts import LEARNER_STEPS

_RATE_SECONDS = 30.0
_SILENT_SECONDS = 5.0
_WAITING_SHARE = "waiting_share"


class Display:
  """Turns a run's status into what is shown of it."""

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    """Initialises the display.

    Args:
      clock: tells the time in seconds.
    """
    self._clock = clock
    # (time, learner steps) of the last while.
    self._learner: collections.deque[tuple[float, float]] = collections.deque()

  def fields(self, status: Mapping[str, Any]) -> dict[str, Any]:
    """What to show of a run beside its environment steps.

    Args:
      status: the coordinator's.

    Returns:
      Numbers and texts by name; None for what is not known yet.
    """
    nodes = status["nodes"]
    metrics = {name: node["metrics"] for name, node in nodes.items()}
    replay, learner = metrics.get("replay", {}), metrics.get("learner", {})
    staleness = [
      value["staleness"] for value in metrics.values() if "staleness" in value
    ]
    inserts = replay.get("inserts", 0)
    steps = learner.get(LEARNER_STEPS, 0)
    states = {name: _describe(node) for name, node in nodes.items()}
    actors = collections.Counter(
      state for name, state in states.items() if name.startswith("actor_")
    )
    others = {
      name: state
      for name, state in states.items()
      if not name.startswith("actor_")
    }
    # What the learner reports from when it is ready to learn.
    starting = _WAITING_SHARE not in learner
    fields = {
      "phase": "starting" if starting else status["phase"],
      "learner steps": steps,
      "learner steps/s": self._rate(steps),
      "learner waits": learner.get(_WAITING_SHARE),
      "replay size": replay.get("size", 0),
      "samples per insert": replay["samples"] / inserts if inserts else None,
      "staleness": max(staleness) if staleness else None,
      "evaluation": metrics.get("evaluator", {}).get("episode_return"),
      **others,
      "actors": ", ".join(
        f"{n} {state}" for state, n in sorted(actors.items())
      ),
    }
    return {**_other_metrics(learner), **fields}

  def _rate(self, steps: float) -> float | None:
    """Learner steps per second over the last while."""
    now = self._clock()
    if self._learner and steps < self._learner[-1][1]:
      self._learner.clear()  # It went back to a checkpoint.
    self._learner.append((now, steps))
    while self._learner[0][0] < now - _RATE_SECONDS:
      self._learner.popleft()
    since, before = self._learner[0]
    return (steps - before) / (now - since) if now > since else None


def _describe(node: Mapping[str, Any]) -> str:
  """What a process does, as far as it is heard of."""
  state, seconds = node["state"], node["silent_seconds"]
  if seconds > _SILENT_SECONDS and state not in ENDED_STATES:
    return f"silent for {seconds:.0f} s"
  return state


def _other_metrics(learner: Mapping[str, Any]) -> dict[str, float]:
  """The learner's numbers that have no name of their own here."""
  return {
    name.replace("_", " "): value
    for name, value in learner.items()
    if name not in (LEARNER_STEPS, _WAITING_SHARE)
    and isinstance(value, int | float)
  }
