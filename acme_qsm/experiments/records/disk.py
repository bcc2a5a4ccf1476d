"""Files of a run that cannot be written, without which it goes on."""

import logging
from collections.abc import Callable
from typing import Any


class SaveError(OSError):
  """What a run did last could not be saved."""


class Disk:
  """Says when a run's files cannot be written, and when they can be again.

  Each in one line, however many files there are.

  Attributes:
    say: is told those lines.
    error: of the last file that could not be written; None if there was none.
  """

  def __init__(self, say: Callable[[str], Any] | None = None):
    """Initialises it.

    Args:
      say: is told what happens, in lines; None for a warning in Python's log.
    """
    self.say = say or _warn
    self.error: OSError | None = None
    self._failing: set[str] = set()

  def attempt(self, what: str, write: Callable[[], Any]) -> bool:
    """Writes something, or does without.

    Args:
      what: the file or the folder.
      write: writes it, or raises OSError.

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
      # All of them: another may need more room.
      if not self._failing:
        self.say("Logs and checkpoints can be written again.")
    return True


def _warn(message: str) -> None:
  logging.warning("%s", message)
