"""Whether another process of a run is alive, as seen from here."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from acme_qsm.distributed.coordination import rpc


class Tie:
  """A connection to a server, kept to see at once when its process ends.

  Attributes:
    cut: set when the connection has ended.
  """

  def __init__(self, address: str, key: bytes):
    """Connects.

    Args:
      address: the server's, as host:port.
      key: the run's.

    Raises:
      UnavailableError: if no server answers.
      StrangerError: if the server that answers does not know the key.
    """
    self.cut = threading.Event()
    self._connection = rpc.Client(address, key).connect()
    connected = socket.socket(fileno=self._connection.fileno())
    # One that is cut off without a word is noticed too, if later.
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    rpc.set_timeouts(connected, 0.0, 0.0)
    connected.detach()

  def watch(self, on_cut: Callable[[], Any]) -> None:
    """Waits, in a thread, for the connection's end.

    Args:
      on_cut: called then, from that thread.
    """

    def wait() -> None:
      with contextlib.suppress(OSError, EOFError), self._connection:
        self._connection.recv_bytes()
      self.cut.set()
      on_cut()

    threading.Thread(target=wait, name="tie", daemon=True).start()

  def close(self) -> None:
    """Ends a connection that is not watched."""
    self._connection.close()


class Lifeline:
  """Judges, from call to call, whether a server is gone for good."""

  def __init__(self, *, gone_seconds: float = 5.0, cut_seconds: float = 90.0):
    """Initialises the judge, before the first call.

    Args:
      gone_seconds: how long a server that has answered before may refuse to,
        which it does when its process is gone.
      cut_seconds: how long the network may be cut; and how long a server may
        take to start, before it first answers.
    """
    self._gone_seconds = gone_seconds
    self._cut_seconds = cut_seconds
    self._answered = False
    self._answered_at = time.monotonic()

  @property
  def silence(self) -> float:
    """Seconds since the last answer."""
    return time.monotonic() - self._answered_at

  def answered(self) -> None:
    """Takes note of an answer."""
    self._answered = True
    self._answered_at = time.monotonic()

  def is_gone(self, error: Exception) -> bool:
    """Judges by the error of the last call."""
    refused = isinstance(error.__cause__, ConnectionRefusedError)
    return self.silence > (
      self._gone_seconds if refused and self._answered else self._cut_seconds
    )
