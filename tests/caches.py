"""What the processes of a test session keep for one another.

Almost all of the tests' time is the compiler's, and most of what it compiles
has been compiled before: by another test, by the other worker, or by a process
that a test has started. Import this module before JAX, which then reads the
environment, as all processes do that are started from here.
"""

import os
import pathlib
import sys

from acme_qsm.experiments.surroundings import compilation_cache

ROOT = pathlib.Path(__file__).parents[1]
# Kept for the next session, as what else pytest keeps; `--cache-clear` clears
# it.
FOLDER = ROOT / ".pytest_cache" / "d"

# JAX's programs, unless the environment says where; by processor, as the
# package's own.
for name, value in {
  "JAX_COMPILATION_CACHE_DIR": FOLDER / compilation_cache.default_folder().name,
  # By default JAX keeps nothing that compiles as quickly as small networks do.
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0,
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": -1,
  # Where in Python each operation of a program comes from takes a tenth of the
  # time that its making takes.
  "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": 0,
}.items():
  os.environ.setdefault(name, str(value))

# Python's. Where the environment has none written, as many containers' does,
# each process would compile all that it imports: more than half of its start.
if sys.dont_write_bytecode:
  sys.dont_write_bytecode = False
  sys.pycache_prefix = sys.pycache_prefix or str(FOLDER / "pycache")
  os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
  os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
