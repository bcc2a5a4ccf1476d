"""Printing that ends no run: what cannot be printed is replaced, or dropped.

Standard output may be closed (`| head -1`, a terminal that has gone), be on a
full disk or take ASCII alone; none of it is a reason to stop training.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any
from typing import TextIO


class Forgiving(io.TextIOBase):
  """Passes on to a text stream what that takes.

  Attributes:
    stream: the stream; None for one that takes nothing.
  """

  def __init__(self, stream: TextIO | None):
    self.stream = stream

  def write(self, text: str, /) -> int:
    """Writes what can be written; returns the length of all."""
    stream = self.stream
    if stream is not None:
      try:
        stream.write(_encodable(text, stream))
      except (OSError, ValueError):  # Broken, or closed.
        _drop(stream)
    return len(text)

  def flush(self) -> None:
    """Has what was written so far arrive, or drops it."""
    if self.stream is not None:
      try:
        self.stream.flush()
      except (OSError, ValueError):
        _drop(self.stream)

  def isatty(self) -> bool:
    """Whether it is a terminal."""
    try:
      return self.stream is not None and self.stream.isatty()
    except (OSError, ValueError):
      return False

  def writable(self) -> bool:
    """Yes."""
    return True

  def fileno(self) -> int:
    """The stream's descriptor; raises OSError if it has none."""
    if self.stream is None:
      raise io.UnsupportedOperation("fileno")
    return self.stream.fileno()

  def close(self) -> None:
    """Does nothing: the stream is another's."""

  @property
  def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The stream's."""
    return getattr(self.stream, "encoding", None) or "utf-8"

  @property
  def errors(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The stream's."""
    return getattr(self.stream, "errors", None)

  @property
  def buffer(self) -> Any:
    """The stream's."""
    return getattr(self.stream, "buffer")  # noqa: B009


def forgiving(stream: TextIO | None) -> Forgiving:
  """The stream itself, or what passes on to it what it takes."""
  return stream if isinstance(stream, Forgiving) else Forgiving(stream)


def innermost(stream: Any) -> Any:
  """What a stream passes on to in the end."""
  while isinstance(stream, Forgiving):
    stream = stream.stream
  return stream


def occupy_descriptors() -> None:
  """Opens nothing in the place of standard streams that are closed.

  Files that are opened later would get their numbers, and native libraries
  would write there.
  """
  for descriptor in (0, 1, 2):
    try:
      os.fstat(descriptor)
    except OSError:
      # It takes the lowest number; what is started has it too.
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


@contextlib.contextmanager
def surviving() -> Iterator[None]:
  """A context in which standard output and error are `Forgiving`.

  At its end, nothing is left in them that would fail when Python ends.
  """
  occupy_descriptors()
  streams = sys.stdout, sys.stderr
  sys.stdout, sys.stderr = mine = tuple(map(forgiving, streams))
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
  """Forgets what a stream has been given and cannot write.

  It would fail again at each flush else, up to Python's own at the end.
  """
  with contextlib.suppress(OSError, ValueError, AttributeError):
    descriptor = stream.fileno()
    original = os.dup(descriptor)
    try:
      nowhere = os.open(os.devnull, os.O_WRONLY)
      try:
        os.dup2(nowhere, descriptor)
        stream.flush()
      finally:
        os.close(nowhere)
        os.dup2(original, descriptor)
    finally:
      os.close(original)
