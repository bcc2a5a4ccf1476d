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


class Group(Protocol):
  """Environments that make their steps together.

  Attributes:
    environments: what observers are told of each.
  """

  environments: Sequence[Any]

  def reset(self, index: int) -> dm_env.TimeStep:
    """Begins an episode in one of them."""
    ...

  def step(self, actions: Sequence[np.ndarray]) -> Sequence[dm_env.TimeStep]:
    """Makes a step in as many of them, the first, as there are actions."""
    ...

  def close(self) -> None:
    """Closes all."""
    ...


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
