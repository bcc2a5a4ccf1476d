"""Signals that ask a run to end, which it does at a moment of its choosing."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

# Two signals within this time count as one.
_SAME_SECONDS = 1.0

LAUNCHERS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""Signals that a terminal or a cluster sends to all processes of a run at once,
and that are for its launcher alone."""


class Interruption:
  """Notes signals to end instead of dying of them: a context manager.

  SIGINT (Ctrl-C), SIGTERM, SIGHUP (a terminal that is closed) and SIGUSR1 (a
  cluster's warning). SIGHUP stays ignored where it was, as under `nohup`.

  The second signal has its usual effect, unless it comes right after the first:
  one process of a group that gets a signal may pass it on to the others.
  Outside the main thread, where Python takes no signals, nothing is changed.
  """

  _SIGNALS = (signal.SIGTERM, *LAUNCHERS)

  def __init__(self):
    self._received: int | None = None
    self._received_at = 0.0
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> "Interruption":
    if threading.current_thread() is threading.main_thread():
      for number in self._SIGNALS:
        if not _stays_ignored(number):
          self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *unused_exception) -> None:
    self._restore()

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def _handle(self, number: int, unused_frame: Any) -> None:
    now = time.monotonic()
    if self._received is None:
      self._received, self._received_at = number, now
    elif now - self._received_at >= _SAME_SECONDS:
      self._restore()
      signal.raise_signal(number)

  @property
  def received(self) -> signal.Signals | None:
    """The signal that has come, if one has."""
    return None if self._received is None else signal.Signals(self._received)

  def requested(self) -> bool:
    """Whether a signal has come."""
    return self._received is not None

  def raise_if_requested(self) -> None:
    """Raises what the signal would have raised.

    Raises:
      KeyboardInterrupt: after SIGINT.
      SystemExit: after another, with the exit code 128 + its number.
    """
    if self._received == signal.SIGINT:
      raise KeyboardInterrupt
    if self._received is not None:
      raise SystemExit(128 + self._received)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
  """A context in which SIGHUP and SIGUSR1 wait until its end.

  A launcher starts processes in it: they inherit the block, and so never get
  these signals.
  """
  held = signal.pthread_sigmask(
    signal.SIG_BLOCK, set(LAUNCHERS) - {signal.SIGINT}
  )
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
  """A context at whose end signals have the handlers that they had before.

  Launchpad and Ray set their own when they start.
  """
  numbers = (*Interruption._SIGNALS, signal.SIGQUIT)
  handlers = {number: signal.getsignal(number) for number in numbers}
  try:
    yield
  finally:
    if threading.current_thread() is threading.main_thread():
      for number, handler in handlers.items():
        signal.signal(number, handler)


def leave_to_launcher() -> None:
  """Has this process, one of a run's, ignore signals for the run's launcher."""
  for number in LAUNCHERS:
    signal.signal(number, signal.SIG_IGN)
  # What a launcher blocks while it starts processes is blocked in them, and in
  # all that they start.
  signal.pthread_sigmask(signal.SIG_UNBLOCK, LAUNCHERS)


def take_as_sigterm() -> None:
  """Has SIGHUP, unless it is ignored, and SIGUSR1 do what SIGTERM does."""
  for number in set(LAUNCHERS) - {signal.SIGINT}:
    if not _stays_ignored(number):
      signal.signal(number, lambda *unused: signal.raise_signal(signal.SIGTERM))


def _stays_ignored(number: int) -> bool:
  return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
