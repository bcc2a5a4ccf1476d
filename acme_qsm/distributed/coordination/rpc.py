"""Calls between the processes of a run, on one machine or on many.

Both ends prove that they know the run's key before either unpickles anything of
the other's (the authentication of `multiprocessing.connection`); so a stranger
can neither call nor answer, and two runs that meet at one address notice it.
Nothing is encrypted.
"""

import contextlib
import pickle
import socket
import struct
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from multiprocessing import AuthenticationError
from multiprocessing import connection as mp_connection
from typing import Any

from acme_qsm.replay.listening import addresses

_HANDSHAKE_SECONDS = 5.0
_SEND_SECONDS = 30.0
# Until a server looks again whether there is room for another client.
_RETRY_SECONDS = 0.1


class RemoteError(Exception):
  """What was called raised an error, there."""


class UnavailableError(ConnectionError):
  """Nobody answered."""


class StrangerError(ConnectionError):
  """Somebody answered who does not know the run's key."""


class Server:
  """Answers calls, each client's in a thread of its own.

  Attributes:
    port: where it listens.
    address: the same, with the host.
  """

  def __init__(
    self,
    functions: Mapping[str, Callable[..., Any]],
    key: bytes,
    host: str,
    port: int = 0,
  ):
    """Starts the server.

    Args:
      functions: what can be called, by name; from several threads at once.
      key: the run's.
      host: the IP address of this machine to listen on.
      port: the port; 0 for a free one.

    Raises:
      OSError: if the port is taken or the address is not this machine's.
    """
    self._functions = dict(functions)
    self._key = key
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    self._socket = socket.create_server((host, port), family=family)
    self._stopped = False
    self._clients: set[socket.socket] = set()
    self._lock = threading.Lock()
    self.port: int = self._socket.getsockname()[1]
    self.address = addresses.join(host, self.port)
    threading.Thread(target=self._accept, name="rpc", daemon=True).start()

  def stop(self) -> None:
    """Takes no more clients, and ends the connections of those it has."""
    with self._lock:
      self._stopped = True
      # Closing alone would not wake the threads that wait for them.
      for waited_for in (self._socket, *self._clients):
        with contextlib.suppress(OSError):
          waited_for.shutdown(socket.SHUT_RDWR)
    self._socket.close()

  def _accept(self) -> None:
    while not self._stopped:
      try:
        client, _ = self._socket.accept()
      except OSError:  # It has gone already, or too much is open for now.
        time.sleep(_RETRY_SECONDS)
        continue
      try:
        threading.Thread(
          target=self._serve, args=(client,), daemon=True
        ).start()
      except RuntimeError:  # There is no room for a thread, for now.
        client.close()

  def _serve(self, client: socket.socket) -> None:
    with client:
      with self._lock:
        if self._stopped:
          return
        self._clients.add(client)
      try:
        self._serve_calls(client)
      except (AuthenticationError, AssertionError, OSError, EOFError):
        pass
      finally:
        with self._lock:
          self._clients.remove(client)

  def _serve_calls(self, client: socket.socket) -> None:
    # A client that is cut off must not be waited for without end.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    set_timeouts(client, _HANDSHAKE_SECONDS, _HANDSHAKE_SECONDS)
    with mp_connection.Connection(client.dup().detach()) as connection:
      mp_connection.deliver_challenge(connection, self._key)
      mp_connection.answer_challenge(connection, self._key)
      set_timeouts(client, 0.0, _SEND_SECONDS)
      while True:
        connection.send_bytes(self._answer(connection.recv_bytes()))

  def _answer(self, call: bytes) -> bytes:
    """Makes a call; returns its pickled outcome."""
    try:
      name, args, kwargs = pickle.loads(call)
      if name not in self._functions:
        raise ValueError(f"There is no function {name!r} to call.")
      value = self._functions[name](*args, **kwargs)
      return pickle.dumps((True, value), pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # The caller's to handle.
      return pickle.dumps((False, f"{type(error).__name__}: {error}"))


class Client:
  """Calls a server's functions; can be shared by threads.

  It connects when it is first used, and again where a connection was lost.
  """

  def __init__(self, address: str, key: bytes, timeout: float = 10.0):
    """Initialises the client.

    Args:
      address: the server's, as host:port.
      key: the run's.
      timeout: seconds to wait for a connection, and for an answer.
    """
    self.address = address
    self._key = key
    self._timeout = timeout
    self._connection: mp_connection.Connection | None = None
    self._lock = threading.Lock()

  def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a function.

    A call whose connection breaks is made once more: the function must not mind
    being called twice.

    Args:
      name: the function's name.
      *args: its arguments, and `**kwargs`: what can be pickled.
      **kwargs: see above.

    Returns:
      What it returned.

    Raises:
      RemoteError: if the function raised an error.
      UnavailableError: if no server answers within the timeout.
      StrangerError: if the server that answers does not know the key.
    """
    with self._lock, self._raising():
      reused = self._connection is not None
      try:
        succeeded, value = self._call_once(name, args, kwargs)
      except (OSError, EOFError):
        if not reused:
          raise
        succeeded, value = self._call_once(name, args, kwargs)
    if not succeeded:
      raise RemoteError(value)
    return value

  def connect(self) -> mp_connection.Connection:
    """Makes a connection that is the caller's to close.

    Raises:
      UnavailableError: if no server answers within the timeout.
      StrangerError: if the server that answers does not know the key.
    """
    with self._raising():
      return self._connect()

  @contextlib.contextmanager
  def _raising(self) -> Iterator[None]:
    """Raises the errors of `call`."""
    try:
      yield
    except (AuthenticationError, AssertionError) as error:
      raise StrangerError(
        f"What answers at {self.address} does not belong to this run."
      ) from error
    except (OSError, EOFError) as error:
      raise UnavailableError(
        f"No answer from {self.address}: {error!r}."
      ) from error

  def close(self) -> None:
    """Ends the connection, if there is one."""
    with self._lock:
      self._close()

  def _close(self) -> None:
    if self._connection is not None:
      self._connection.close()
      self._connection = None

  def _call_once(self, name: str, args: tuple, kwargs: Mapping[str, Any]):
    if self._connection is None:
      self._connection = self._connect()
    # What cannot be pickled is not half sent.
    call = pickle.dumps((name, args, kwargs), pickle.HIGHEST_PROTOCOL)
    try:
      self._connection.send_bytes(call)
      answer = self._connection.recv_bytes()
    except BaseException:  # A late answer is not that of the next call.
      self._close()
      raise
    return pickle.loads(answer)

  def _connect(self) -> mp_connection.Connection:
    server = socket.create_connection(
      addresses.split(self.address), self._timeout
    )
    server.settimeout(None)
    set_timeouts(server, self._timeout, self._timeout)
    connection = mp_connection.Connection(server.detach())
    try:
      mp_connection.answer_challenge(connection, self._key)
      mp_connection.deliver_challenge(connection, self._key)
    except BaseException:
      connection.close()
      raise
    return connection


def free_port(host: str) -> int:
  """Finds a port of this machine that no server listens on.

  Args:
    host: the IP address to listen on.
  """
  family = socket.AF_INET6 if ":" in host else socket.AF_INET
  with socket.create_server((host, 0), family=family) as server:
    return server.getsockname()[1]


def set_timeouts(connected: socket.socket, receive: float, send: float) -> None:
  """Sets a socket's timeouts in seconds; 0 waits without end."""
  for option, seconds in (
    (socket.SO_RCVTIMEO, receive),
    (socket.SO_SNDTIMEO, send),
  ):
    value = struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
    connected.setsockopt(socket.SOL_SOCKET, option, value)
