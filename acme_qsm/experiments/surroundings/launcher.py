"""What surrounds a launcher, and is to change nothing of what it trains."""

import contextlib
import os
import sys
from collections.abc import Iterator

from acme_qsm.deferred import jax
from acme_qsm.experiments.surroundings import homes
from acme_qsm.experiments.surroundings import output

_DOUBLES = "JAX_ENABLE_X64"
_PLATFORMS = "JAX_PLATFORMS"


@contextlib.contextmanager
def settled() -> Iterator[None]:
  """A context, or a decorator, of a launcher's whole work.

  What cannot be printed ends nothing, and JAX computes in float32, here and in
  processes that are started, whatever its environment variable says: what is
  left of a run is read wherever it goes on. JAX has a CPU, on which actors act,
  beside the platforms that it is told of.
  """
  homes.give_keras_a_folder()
  with output.surviving(), _single_precision(), _cpu():
    yield


@contextlib.contextmanager
def _cpu() -> Iterator[None]:
  before = os.environ.get(_PLATFORMS, "")
  if not before or "cpu" in before.split(","):
    yield
    return
  # The first one is the default: that stays.
  platforms = os.environ[_PLATFORMS] = f"{before},cpu"
  # Where JAX is not loaded yet, it reads the environment when it is.
  is_loaded = "jax" in sys.modules
  configured = is_loaded and getattr(jax.config, "jax_platforms")  # noqa: B009
  if is_loaded:
    jax.config.update("jax_platforms", platforms)
  try:
    yield
  finally:
    os.environ[_PLATFORMS] = before
    if is_loaded:
      jax.config.update("jax_platforms", configured)


@contextlib.contextmanager
def _single_precision() -> Iterator[None]:
  variable = os.environ.get(_DOUBLES)
  # Where JAX is not loaded yet, it reads the environment when it is.
  is_loaded = "jax" in sys.modules
  doubles = is_loaded and getattr(jax.config, "jax_enable_x64")  # noqa: B009
  if variable is not None:
    os.environ[_DOUBLES] = "0"
  if doubles:
    jax.config.update("jax_enable_x64", False)
  try:
    yield
  finally:
    if variable is not None:
      os.environ[_DOUBLES] = variable
    if doubles:
      jax.config.update("jax_enable_x64", True)
