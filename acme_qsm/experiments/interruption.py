"""Stopping at a moment of the run's own choosing."""

import signal
import threading
import time
from typing import Any

# Signals so close to each other are one.
_SAME_SECONDS = 1.0


class Interruption:
  """Notes SIGINT and SIGTERM instead of dying of them: a context manager.

  The second signal has its usual effect, unless it comes with the first: a
  signal to a group of processes may be passed on by one of them as well.
  Outside the main thread, where Python takes no signals, nothing is changed.
  """

  _SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self._received: int | None = None
    self._received_at = 0.0
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> "Interruption":
    if threading.current_thread() is threading.main_thread():
      for number in self._SIGNALS:
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

  def requested(self) -> bool:
    """Whether a signal has come."""
    return self._received is not None

  def raise_if_requested(self) -> None:
    """Raises what the signal would have raised.

    Raises:
      KeyboardInterrupt: after SIGINT.
      SystemExit: after SIGTERM, with the exit code 128 + 15.
    """
    if self._received == signal.SIGINT:
      raise KeyboardInterrupt
    if self._received is not None:
      raise SystemExit(128 + self._received)
