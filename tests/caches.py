"""What makes tests quick: programs are compiled simply, and once.

Almost all of the tests' time is the compiler's, and most of what it compiles
has been compiled before: by another test, by the other worker, or by a process
that a test has started. Import this module before JAX, which then reads the
environment, as all processes do that are started from here.
"""

import gc
import os
import pathlib
import sys

from acme_qsm.experiments.surroundings import compilation_cache

ROOT = pathlib.Path(__file__).parents[1]
# Kept for the next session, as what else pytest keeps; `--cache-clear` clears
# it.
FOLDER = ROOT / ".pytest_cache" / "d"
# A program as small as these is compiled in one piece.
_IN_ONE_PIECE = "--xla_cpu_parallel_codegen_split_count=1"


def _programs() -> pathlib.Path:
  """Where JAX's programs are kept: by processor, as the package's own."""
  try:
    return FOLDER / compilation_cache.default_folder().name
  except RuntimeError:  # The user has no home, and this needs none.
    return FOLDER / "jax"


# Unless the environment says otherwise.
for name, value in {
  "JAX_COMPILATION_CACHE_DIR": _programs(),
  # By default JAX keeps nothing that compiles as quickly as small networks do.
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0,
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
  # Where in Python each operation of a program comes from takes a tenth of the
  # time that its making takes.
  "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": 0,
}.items():
  os.environ.setdefault(name, str(value))
flags = os.environ.get("XLA_FLAGS", "")
if _IN_ONE_PIECE not in flags:
  os.environ["XLA_FLAGS"] = f"{flags} {_IN_ONE_PIECE}".strip()

# Tracing makes many objects that stay: looking for garbage among them as often
# as by default takes a third of its time.
gc.set_threshold(50_000, 20, 10)

# Python's. Where the environment has none written, as many containers' does,
# each process would compile all that it imports: more than half of its start.
if sys.dont_write_bytecode:
  sys.dont_write_bytecode = False
  sys.pycache_prefix = sys.pycache_prefix or str(FOLDER / "pycache")
  os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
  os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
