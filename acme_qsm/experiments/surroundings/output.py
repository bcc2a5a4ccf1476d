"""Printing that ends no run: what cannot be printed is replaced, or dropped.

Standard output may be closed (`| head -1`, a terminal that has gone), be on a
full disk or take ASCII alone; none of it is a reason to stop training.
"""

import contextlib
import os
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from typing import cast
from typing import TextIO


class _Forgiving:
  """Is like a text stream, but drops what that stream does not take."""

  def __init__(self, stream: TextIO):
    self.stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self.stream, name)

  def write(self, text: str, /) -> int:
    """Writes what can be written; returns the length of all."""
    try:
      self.stream.write(_encodable(text, self.stream))
    except (OSError, ValueError):  # Broken, or closed.
      _drop(self.stream)
    return len(text)

  def writelines(self, lines: Iterable[str], /) -> None:
    """Writes what can be written."""
    self.write("".join(lines))

  def flush(self) -> None:
    """Has what was written so far arrive, or drops it."""
    try:
      self.stream.flush()
    except (OSError, ValueError):
      _drop(self.stream)

  def isatty(self) -> bool:
    """Whether it is a terminal."""
    try:
      return self.stream.isatty()
    except (OSError, ValueError):
      return False

  def close(self) -> None:
    """Does nothing: the stream is another's."""


def forgiving(stream: TextIO | None) -> TextIO:
  """A stream that is like another, but drops what that does not take.

  Args:
    stream: the other; None for one that takes nothing.

  Returns:
    The stream.
  """
  if isinstance(stream, _Forgiving):
    return stream
  return cast(TextIO, _Forgiving(stream or open(os.devnull, "w")))


def innermost(stream: Any) -> Any:
  """The stream that a `forgiving` one is like; any other is itself."""
  return stream.stream if isinstance(stream, _Forgiving) else stream


def occupy_descriptors() -> None:
  """Opens `os.devnull` in the place of each standard stream that is closed.

  A file that is opened later would get that stream's number else, and native
  libraries would write into it.
  """
  for descriptor in (0, 1, 2):
    try:
      os.fstat(descriptor)
    except OSError:
      # It takes the lowest number; processes that are started have it too.
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


@contextlib.contextmanager
def surviving() -> Iterator[None]:
  """A context in which standard output and error are `forgiving`.

  At its end, nothing is left in them that would fail when Python ends.
  """
  occupy_descriptors()
  streams = sys.stdout, sys.stderr
  sys.stdout, sys.stderr = mine = forgiving(sys.stdout), forgiving(sys.stderr)
  try:
    yield
  finally:
    for each in mine:
      each.flush()
    sys.stdout, sys.stderr = streams


def _encodable(text: str, stream: TextIO) -> str:
  """The text, with what the stream cannot encode in its escaped form."""
  encoding = getattr(stream, "encoding", None)
  if encoding is None or text.isascii():
    return text
  return text.encode(encoding, "backslashreplace").decode(encoding)


def _drop(stream: TextIO) -> None:
  """Empties the buffer of a stream that cannot write what is in it.

  The stream would fail again at each flush else, up to Python's own at the end.
  """
  with (
    contextlib.suppress(OSError, ValueError, AttributeError),
    contextlib.ExitStack() as stack,
  ):
    descriptor = stream.fileno()
    original, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
    stack.callback(os.close, original)
    stack.callback(os.close, nowhere)
    stack.callback(os.dup2, original, descriptor)
    os.dup2(nowhere, descriptor)
    stream.flush()
