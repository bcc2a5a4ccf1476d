"""Keeps what native libraries print out of the live display."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def redirected(path: pathlib.Path | None) -> Iterator[None]:
  """Appends to a file what C++ code (Reverb's log) writes to standard error.

  Python's own `sys.stderr` goes on to where it went.

  Args:
    path: the file; None to redirect nothing.
  """
  if path is None:
    yield
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  original = os.dup(2)
  python_stderr = sys.stderr
  with open(path, "ab") as file, open(original, "w", buffering=1) as terminal:
    os.dup2(file.fileno(), 2)
    # Only where Python writes to the descriptor that was taken: a test runner,
    # for one, may have put something else there.
    if python_stderr is sys.__stderr__:
      sys.stderr = terminal
    try:
      yield
    finally:
      sys.stderr = python_stderr
      os.dup2(original, 2)
