"""Environments of a run, each of which is closed when it has done its part."""

import contextlib
import logging
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import TypeVar

import dm_env
import numpy as np

from acme_qsm.experiments.config import ExperimentError
from acme_qsm.replay import memory_limit

# How many beside the first tell what one takes, when it is first weighed.
_NUM_WEIGHED = 4


class OneByOne:
  """A group of environments that are stepped one after the other."""

  def __init__(self, environments: Sequence[dm_env.Environment]):
    self.environments = environments

  def reset(self, index: int) -> dm_env.TimeStep:
    """Begins an episode in one of them."""
    return self.environments[index].reset()

  def step(self, actions: Sequence[np.ndarray]) -> list[dm_env.TimeStep]:
    """Makes a step in as many of them, the first, as there are actions."""
    return [
      self.environments[index].step(action)
      for index, action in enumerate(actions)
    ]

  def close(self) -> None:
    """Closes all."""
    for environment in self.environments:
      close(environment)


def require_room(
  num_environments: int, bytes_each: int, available: int | None
) -> None:
  """Refuses environments that do not fit into memory.

  Args:
    num_environments: that are still to be made.
    bytes_each: that one takes.
    available: bytes of memory that there are; None for any.

  Raises:
    ExperimentError: if they need more than that, with the sum.
  """
  needed = num_environments * bytes_each
  if available is None or needed <= available:
    return
  raise ExperimentError(
    f"Environments do not fit into memory: {num_environments:,} more of "
    f"{bytes_each / 1e6:.1f} MB = {needed / 1e6:,.0f} MB; "
    f"{available / 1e6:,.0f} MB are free. Set a smaller num_envs."
  )


def make_one_by_one(
  make: Callable[[int], Any], seeds: Sequence[int]
) -> OneByOne:
  """Makes a group, once some of it have shown that memory holds all.

  Args:
    make: seed -> environment.
    seeds: of each environment.

  Returns:
    The group.

  Raises:
    ExperimentError: if memory does not hold all of them.
  """
  made = []
  try:
    # The first may load much that the others share.
    before = 0
    next_weighed = _NUM_WEIGHED
    for number, seed in enumerate(seeds):
      made.append(make(seed))
      if number == 0:
        before = memory_limit.resident_memory()
      if number == next_weighed:
        require_room(
          len(seeds) - len(made),
          (memory_limit.resident_memory() - before) // number,
          memory_limit.available_memory(),
        )
        # Memory that others give back meanwhile hides what these take: once
        # more when there are twice as many.
        next_weighed *= 2
  except BaseException:
    OneByOne(made).close()
    raise
  return OneByOne(made)


class _Closeable(Protocol):
  def close(self) -> Any: ...


_Environment = TypeVar("_Environment", bound=_Closeable)


def close(environment: _Closeable) -> None:
  """Closes an environment; one that cannot be closed ends no run."""
  try:
    environment.close()
  except Exception as error:
    logging.warning(
      "An environment could not be closed: %s: %s", type(error).__name__, error
    )


@contextlib.contextmanager
def opened(make: Callable[[], _Environment]) -> Iterator[_Environment]:
  """A context in which there is an environment; closed at its end."""
  environment = make()
  try:
    yield environment
  finally:
    close(environment)
