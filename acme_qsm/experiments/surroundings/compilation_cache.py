"""Compiled programs, kept on disk: what was compiled once starts quickly."""

import hashlib
import os
import pathlib
import platform
import sys

from acme_qsm.experiments.surroundings import homes
from acme_qsm.experiments.surroundings import jax_settings

# What takes less to compile takes as long to find and read.
_LEAST_SECONDS = 0.1


def use(folder: pathlib.Path | None = None) -> pathlib.Path | None:
  """Has JAX keep what it compiles, in this process and those that it starts.

  A user's own `JAX_COMPILATION_CACHE_DIR` stays as it is. What JAX cannot read
  or write there, it compiles anew, with a warning.

  Args:
    folder: where; None for `default_folder`.

  Returns:
    The folder; None where that variable names one, and where nothing can be
    kept, of which a line warns.
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
  jax_settings.change(
    jax_compilation_cache_dir=str(folder),
    jax_persistent_cache_min_compile_time_secs=_LEAST_SECONDS,
  )
  return folder


def default_folder() -> pathlib.Path:
  """Where programs are kept: in the user's cache folder, by processor.

  Machines may share a home and have processors with different instructions,
  which JAX does not check for.

  Raises:
    RuntimeError: if the user has no home.
  """
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  name = f"jax_{platform.machine()}_{_processor()}"
  return pathlib.Path(base).expanduser() / "acme_qsm" / name


def _processor() -> str:
  """A name of this processor and of the instructions that it has."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  # Every core has the same lines.
  features = {
    line
    for line in lines
    if line.startswith(("flags", "Features", "model name"))
  }
  text = "\n".join(sorted(features)) or platform.processor()
  return hashlib.sha256(text.encode()).hexdigest()[:12]
