"""Compiled programs, kept on disk: what was compiled once starts quickly."""

import hashlib
import os
import pathlib
import platform
import sys

from acme_qsm.deferred import jax
from acme_qsm.experiments.surroundings import homes

# What takes less to compile takes as long to find and read.
_LEAST_SECONDS = 0.1


def use(folder: pathlib.Path | None = None) -> pathlib.Path | None:
  """Has JAX keep what it compiles, in this process and those that it starts.

  Who has said where by JAX's own `JAX_COMPILATION_CACHE_DIR` is left alone.
  What JAX cannot read or write there, it compiles anew, with a warning.

  Args:
    folder: where; None for `default_folder`.

  Returns:
    The folder; None where the environment says it, and where nothing can be
    kept, which is told in a line.
  """
  if "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return None
  try:
    folder = folder or default_folder()
    homes.require_writable(folder)
  except (OSError, RuntimeError) as error:
    # RuntimeError: pathlib's, of a user without a home.
    print(
      f"Warning: what JAX compiles is not kept for the next start: {error}",
      file=sys.stderr,
    )
    return None
  for name, value in {
    "jax_compilation_cache_dir": str(folder),
    "jax_persistent_cache_min_compile_time_secs": _LEAST_SECONDS,
  }.items():
    os.environ[name.upper()] = str(value)
    # Where it is not loaded yet, it reads the environment when it is.
    if "jax" in sys.modules:
      jax.config.update(name, value)
  return folder


def default_folder() -> pathlib.Path:
  """Where programs are kept: in the user's cache folder, by processor.

  A home may be shared by machines whose processors differ in what they can do,
  which JAX does not ask for.

  Raises:
    RuntimeError: if the user has no home.
  """
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  name = f"jax_{platform.machine()}_{_processor()}"
  return pathlib.Path(base).expanduser() / "acme_qsm" / name


def _processor() -> str:
  """Tells processors that can do different things apart."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  features = [
    line
    for line in lines
    if line.startswith(("flags", "Features", "model name"))
  ]
  # Every core has the same.
  text = "\n".join(sorted(set(features))) or platform.processor()
  return hashlib.sha256(text.encode()).hexdigest()[:12]
