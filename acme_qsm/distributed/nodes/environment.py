"""An environment as the processes of a run call it."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import dm_env

# How long it may take to make an environment, which may have much to load.
_MAKE_SECONDS = 300.0


class EnvironmentFailedError(Exception):
  """An environment cannot be made, or raised an error."""


class Environment(dm_env.Environment):
  """A run's environment, each call of which must end in time.

  Attributes:
    environment: the environment itself.
  """

  def __init__(
    self,
    make: Callable[[], Any],
    within: Callable[[float], AbstractContextManager[None]],
    seconds: float,
  ):
    """Makes the environment, in time.

    Args:
      make: makes it.
      within: a context for a call that may take so many seconds.
      seconds: how long a call may take.

    Raises:
      EnvironmentFailedError: if it cannot be made.
    """
    self._within = within
    self._seconds = seconds
    with self._calling(_MAKE_SECONDS):
      self.environment = make()

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode, in time."""
    with self._calling(self._seconds):
      return self.environment.reset()

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step, in time."""
    with self._calling(self._seconds):
      return self.environment.step(action)

  def close(self) -> None:
    """Closes it, in time."""
    with self._calling(self._seconds):
      self.environment.close()

  def observation_spec(self) -> Any:
    """The environment's own."""
    return self.environment.observation_spec()

  def action_spec(self) -> Any:
    """The environment's own."""
    return self.environment.action_spec()

  @contextlib.contextmanager
  def _calling(self, seconds: float) -> Iterator[None]:
    with self._within(seconds):
      try:
        yield
      except Exception as error:
        raise EnvironmentFailedError(
          f"The environment raised {type(error).__name__}: {error}"
        ) from error
