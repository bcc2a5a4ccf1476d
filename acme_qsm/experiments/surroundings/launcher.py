"""What surrounds a launcher, and is to change nothing of what it trains."""

import contextlib
import os
from collections.abc import Iterator

from acme_qsm.experiments.surroundings import homes
from acme_qsm.experiments.surroundings import jax_settings
from acme_qsm.experiments.surroundings import output


@contextlib.contextmanager
def settled() -> Iterator[None]:
  """A context, or a decorator, of a launcher's whole work.

  What cannot be printed ends nothing. JAX computes in float32, here and in
  processes that are started, whatever its environment variable says: what is
  left of a run is read wherever the run goes on. And JAX has a CPU, on which
  actors act, beside the platforms that its environment variable names.
  """
  homes.give_keras_a_folder()
  platforms = os.environ.get("JAX_PLATFORMS", "")
  with contextlib.ExitStack() as stack:
    stack.enter_context(output.surviving())
    stack.enter_context(jax_settings.changed("jax_enable_x64", False))
    if platforms and "cpu" not in platforms.split(","):
      # The first one is the default: that stays.
      stack.enter_context(
        jax_settings.changed("jax_platforms", f"{platforms},cpu")
      )
    yield
