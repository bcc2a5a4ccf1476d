"""What a run counts: environment steps, learner steps, episodes, seconds."""

import threading
from collections.abc import Callable
from collections.abc import Mapping

ACTOR_STEPS = "actor_steps"
LEARNER_STEPS = "learner_steps"

_COUNTED = ("steps", "episodes", "walltime")


def is_count(name: str) -> bool:
  """Whether a value of that name in a log is a count, and not a metric."""
  return name in _COUNTED or name.endswith(tuple(f"_{c}" for c in _COUNTED))


class Counts:
  """A run's counts by name; for calls from any thread."""

  def __init__(
    self,
    initial: Mapping[str, float] | None = None,
    others: Callable[[], Mapping[str, float]] = dict,
  ):
    """Initialises the counts.

    Args:
      initial: what was counted before, by a run that goes on.
      others: what other processes count.
    """
    self._own = dict(initial or {})
    self._others = others
    self._lock = threading.Lock()

  def increment(self, **counts: float) -> dict[str, float]:
    """Adds to the counts; returns them all."""
    with self._lock:
      for name, value in counts.items():
        self._own[name] = self._own.get(name, 0) + value
    return self.get_counts()

  def get_counts(self) -> dict[str, float]:
    """All counts by name."""
    with self._lock:
      return {**self._others(), **self._own}

  def __getitem__(self, name: str) -> int:
    return int(self.get_counts().get(name, 0))


class Counter:
  """Counts under a prefix, with the methods of Acme's counter."""

  def __init__(self, counts: Counts, prefix: str):
    """Initialises the counter.

    Args:
      counts: what it adds to.
      prefix: what it is that counts, such as "learner".
    """
    self._counts = counts
    self._prefix = prefix

  def increment(self, **counts: float) -> dict[str, float]:
    """Adds to `<prefix>_<name>`; returns all counts."""
    return self._counts.increment(
      **{f"{self._prefix}_{name}": value for name, value in counts.items()}
    )

  def get_counts(self) -> dict[str, float]:
    """All counts by name."""
    return self._counts.get_counts()
