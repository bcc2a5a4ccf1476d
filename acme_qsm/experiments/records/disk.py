"""Writing files: whole or not at all, and a run goes on where it fails."""

import contextlib
import logging
import os
import pathlib
from collections.abc import Callable
from typing import Any


class CheckpointError(Exception):
  """A checkpoint cannot be used."""


class UnreadableError(CheckpointError):
  """A checkpoint cannot be read now, or by this release, but may be whole."""


class SaveError(OSError):
  """What a run did last could not be saved."""


class Disk:
  """Says when a run's files cannot be written, and when they can be again.

  It says so in one line each time, however many files there are.

  Attributes:
    say: is told those lines.
    error: of the last file that could not be written; None if there was none.
  """

  def __init__(self, say: Callable[[str], Any] | None = None):
    """Initialises it.

    Args:
      say: is told what happens, in lines; None for a warning in Python's log.
    """
    self.say = say or (lambda line: logging.warning("%s", line))
    self.error: OSError | None = None
    self._failing: set[str] = set()

  def attempt(self, what: str, write: Callable[[], Any]) -> bool:
    """Writes a file or a folder, and catches the OSError if that fails.

    Args:
      what: its name.
      write: writes it.

    Returns:
      Whether it was written.
    """
    try:
      write()
    except OSError as error:
      self.error = error
      if not self._failing:
        self.say(
          f"Warning: {what} cannot be written: {error}. The run goes on "
          "without logs and checkpoints; the last checkpoint stays."
        )
      self._failing.add(what)
      return False
    if what in self._failing:
      self._failing.remove(what)
      # Once all have been written: another one may need more room.
      if not self._failing:
        self.say("Logs and checkpoints can be written again.")
    return True

  def forget(self, what: str) -> None:
    """Stops waiting for a file to be written that is not tried any more."""
    self._failing.discard(what)


def write_atomically(
  path: pathlib.Path, data: bytes, *, durable: bool = True
) -> None:
  """Writes a file so that its name holds either the old or the new content.

  Args:
    path: the file, in a folder that exists.
    data: its new content.
    durable: whether to wait until it is on the disk; else that holds unless the
      machine goes down.

  Raises:
    OSError: if writing fails; the old content stays.
  """
  temporary = path.with_name(f".{path.name}.tmp")
  try:
    temporary.write_bytes(data)
    if durable:
      sync(temporary)
    temporary.replace(path)
  except BaseException:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise


def sync(path: pathlib.Path) -> None:
  """Waits until a file's or a folder's content is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
