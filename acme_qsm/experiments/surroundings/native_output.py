"""Keeps what native libraries print out of the live display."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

from acme_qsm.experiments.surroundings import output


@contextlib.contextmanager
def redirected(path: pathlib.Path | None) -> Iterator[None]:
  """Appends to a file what C++ code (Reverb's log) writes to standard error.

  Python's own `sys.stderr` keeps its destination. If the file cannot be opened,
  as on a full disk, nothing is redirected.

  Args:
    path: the file; None to redirect nothing.
  """
  file = _open(path)
  if file is None:
    yield
    return
  python_stderr = sys.stderr
  with contextlib.ExitStack() as stack:
    stack.callback(os.close, file)
    original = os.dup(2)
    encoding = getattr(python_stderr, "encoding", None)
    terminal = stack.enter_context(
      open(original, "w", buffering=1, encoding=encoding)
    )
    # So that closing it does not fail for what it could not write.
    forgiving = output.forgiving(terminal)
    stack.callback(forgiving.flush)
    os.dup2(file, 2)
    stack.callback(os.dup2, original, 2)
    # Unless `sys.stderr` is something else than the redirected descriptor, as a
    # test runner's may be.
    if output.innermost(python_stderr) is sys.__stderr__:
      sys.stderr = forgiving
    try:
      yield
    finally:
      sys.stderr = python_stderr


def _open(path: pathlib.Path | None) -> int | None:
  """Opens the file; None if that, or standard error, is not there."""
  if path is None:
    return None
  try:
    os.fstat(2)
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
  except OSError:
    return None
