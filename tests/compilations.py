"""One cache of JAX's compilations, for all processes of a test session.

Almost all of the tests' time is the compiler's, and most of what it compiles
has been compiled before: by another test, by the other worker, or by a process
that a test has started. Import this module before JAX, which then reads the
environment, as all processes do that are started from here.
"""

import os
import pathlib

from acme_qsm.experiments import compilation_cache

ROOT = pathlib.Path(__file__).parents[1]
# Unless the environment says where. Kept for the next session, as what else
# pytest keeps; `--cache-clear` clears it. By processor, as the package's own.
FOLDER = ROOT / ".pytest_cache" / "d" / compilation_cache.default_folder().name

for name, value in {
  "JAX_COMPILATION_CACHE_DIR": str(FOLDER),
  # By default JAX keeps nothing that compiles as quickly as small networks do.
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}.items():
  os.environ.setdefault(name, value)
