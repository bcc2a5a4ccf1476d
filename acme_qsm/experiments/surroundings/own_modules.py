"""Where a user's own modules are found, in all processes of a run.

Their folder is the last one that Python looks in: a file there may have the
name of one of Python's own modules, or of a package that is loaded later.
"""

import os
import sys
from collections.abc import Sequence

_VARIABLE = "ACME_QSM_MODULES"
"""Environment variable: the folder with the user's own modules."""

# What `-m` does, but that the current folder, which is "" in `sys.path`, is the
# last place to look in and not the first.
_RUN_MODULE = """
import sys
sys.path[:] = [*filter(None, sys.path), ""]
import runpy
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def find_in(folder: str) -> None:
  """Has modules be found in a folder, here and in processes that are started.

  Those processes call `find` before they need one.
  """
  os.environ[_VARIABLE] = folder
  find()


def find() -> None:
  """Has modules be found in the folder that `find_in` was called with."""
  folder = os.environ.get(_VARIABLE)
  if folder is not None and folder not in sys.path:
    sys.path.append(folder)


def command(module: str, *arguments: str) -> Sequence[str]:
  """The command that runs a module as a program.

  Unlike with `-m`, no module of the current folder takes the place of another:
  a `types.py` there would stop any Python.

  Args:
    module: its name.
    *arguments: what it is told.

  Returns:
    The command's words.
  """
  return [sys.executable, "-c", _RUN_MODULE, module, *arguments]
