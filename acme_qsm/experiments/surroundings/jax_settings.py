"""Settings of JAX's, in this process and in those that it starts.

A process that has not loaded JAX yet reads them from its environment when it
does.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def change(**values: Any) -> None:
  """Changes settings, by the names that they have in `jax.config`."""
  for name, value in values.items():
    os.environ[name.upper()] = str(value)
    jax: Any = sys.modules.get("jax")
    if jax is not None:
      jax.config.update(name, value)


@contextlib.contextmanager
def changed(name: str, value: Any) -> Iterator[None]:
  """A context in which a setting has another value."""
  variable = os.environ.get(name.upper())
  configured = {}
  jax: Any = sys.modules.get("jax")
  if jax is not None:
    configured[name] = getattr(jax.config, name)
  change(**{name: value})
  try:
    yield
  finally:
    change(**configured)
    os.environ.pop(name.upper())
    if variable is not None:
      os.environ[name.upper()] = variable
