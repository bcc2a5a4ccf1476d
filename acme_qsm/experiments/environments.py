"""Environments of a run, each of which is closed when it has done its part."""

import contextlib
import logging
from collections.abc import Callable
from collections.abc import Iterator
from typing import TypeVar

import dm_env

_Environment = TypeVar("_Environment", bound=dm_env.Environment)


def close(environment: dm_env.Environment) -> None:
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
