"""Calls between processes: real sockets, and whoever is at the other end."""

import contextlib
import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing import connection as mp_connection

import numpy as np
import pytest

from acme_qsm.distributed.coordination import liveness
from acme_qsm.distributed.coordination import rpc

KEY = b"the run's key"
HOST = "127.0.0.1"


@contextlib.contextmanager
def serving(functions, key=KEY, port=0):
  server = rpc.Server(functions, key, HOST, port)
  try:
    yield server
  finally:
    server.stop()


def make_client(port, key=KEY, timeout=10.0):
  return rpc.Client(f"{HOST}:{port}", key, timeout)


def test_arrays_and_keywords_make_the_round_trip():
  with serving({"scale": lambda x, *, factor: {"x": x * factor}}) as server:
    client = make_client(server.port)
    # More than a socket's buffers hold.
    array = np.arange(1_000_000, dtype=np.float32)
    for factor in (2, 3):
      result = client.call("scale", array, factor=factor)
      np.testing.assert_array_equal(result["x"], factor * array)


def test_errors_come_back_and_the_connection_stays():
  def fail():
    raise KeyError("nothing there")

  functions = {
    "fail": fail,
    "lock": threading.Lock,
    "one": lambda: 1,
    "take": lambda x: x,
  }
  with serving(functions) as server:
    client = make_client(server.port)
    assert client.call("one") == 1
    connection = client._connection
    for call, message in (
      (["fail"], "KeyError: 'nothing there'"),
      (["other"], "no function 'other'"),
      # What cannot be pickled there, and what cannot be unpickled.
      (["lock"], "cannot pickle"),
      (["take", Unreadable()], "ZeroDivisionError"),
    ):
      with pytest.raises(rpc.RemoteError, match=message):
        client.call(*call)
    # Nor is half a call sent of what cannot be pickled here.
    with pytest.raises(TypeError, match="cannot pickle"):
      client.call("take", threading.Lock())
    assert client.call("one") == 1
    assert client._connection is connection


class Unreadable:
  """Cannot be unpickled."""

  def __reduce__(self):
    return divmod, (1, 0)


def test_a_call_that_is_broken_off_is_not_answered_by_the_next():
  release, entered = threading.Event(), threading.Event()

  def wait():
    entered.set()
    release.wait(30)
    return "late"

  with serving({"wait": wait, "one": lambda: 1}) as server:
    client = make_client(server.port)

    def interrupt():
      entered.wait(30)
      signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
      client.call("wait")
    thread.join()
    release.set()
    assert client.call("one") == 1


def test_another_runs_client_is_refused():
  called = []
  with serving({"call": lambda: called.append(1)}) as server:
    with pytest.raises(rpc.StrangerError, match="does not belong to this run"):
      make_client(server.port, key=b"another run's").call("call")
    assert not called
    # And its refusal harms nobody else.
    make_client(server.port).call("call")
    assert called == [1]


class Bomb:
  """Makes a folder when it is unpickled."""

  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return os.mkdir, (self._path,)


def test_nothing_of_a_strangers_is_unpickled(tmp_path):
  bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
  with serving({}) as server:
    with mp_connection.Client((HOST, server.port)) as stranger:
      stranger.recv_bytes()  # The challenge.
      stranger.send_bytes(bomb)
      assert stranger.recv_bytes() == b"#FAILURE#"
      with pytest.raises((EOFError, OSError)):
        stranger.recv_bytes()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("says", [b"", b"\0\0\0\x04HTTP", b"SSH-2.0-OpenSSH"])
def test_a_foreign_server_is_an_error(says):
  with socket.create_server((HOST, 0)) as foreign:

    def answer():
      client, _ = foreign.accept()
      with client:
        client.sendall(says)
        if not says:
          client.recv(1)  # Until the client gives up.

    thread = threading.Thread(target=answer)
    thread.start()
    client = make_client(foreign.getsockname()[1], timeout=0.5)
    with pytest.raises((rpc.StrangerError, rpc.UnavailableError)):
      client.call("anything")
    thread.join()


def test_an_answer_that_does_not_come_is_not_waited_for():
  release = threading.Event()
  with serving({"wait": release.wait, "one": lambda: 1}) as server:
    client = make_client(server.port, timeout=0.5)
    with pytest.raises(rpc.UnavailableError):
      client.call("wait")
    # A late answer is not taken for that of the next call.
    release.set()
    assert client.call("one") == 1


def test_one_client_does_not_wait_for_another():
  release, entered = threading.Event(), threading.Event()

  def wait():
    entered.set()
    return release.wait(30)

  with serving({"wait": wait, "one": lambda: 1}) as server:
    waiting = threading.Thread(
      target=lambda: make_client(server.port, timeout=30).call("wait")
    )
    waiting.start()
    assert entered.wait(30)
    assert make_client(server.port).call("one") == 1
    release.set()
    waiting.join()


def test_clients_find_a_server_that_was_started_again():
  with serving({"name": lambda: "first"}) as server:
    client = make_client(server.port)
    assert client.call("name") == "first"
    # What a killed process's connections look like to its clients.
    port = server.port
    client._connection.close()
  with serving({"name": lambda: "second"}, port=port):
    assert client.call("name") == "second"


def test_a_server_outlives_a_lack_of_descriptors(monkeypatch):
  # An error of `accept` comes from the kernel; its limits are the process's.
  with serving({"one": lambda: 1}) as server:
    accept, errors = server._socket.accept, [errno.EMFILE, errno.ECONNABORTED]

    class Socket:
      """The server's, which fails now and then."""

      def accept(self):
        if errors:
          code = errors.pop()
          raise OSError(code, os.strerror(code))
        return accept()

      def __getattr__(self, name):
        return getattr(socket_, name)

    socket_, server._socket = server._socket, Socket()
    for _ in range(4):
      assert make_client(server.port).call("one") == 1
    assert not errors


def test_a_server_that_stops_ends_connections():
  with serving({"one": lambda: 1}) as server:
    client = make_client(server.port, timeout=1.0)
    assert client.call("one") == 1
    cut = threading.Event()
    liveness.Tie(server.address, KEY).watch(cut.set)
  assert cut.wait(5)
  with pytest.raises(rpc.UnavailableError, match=f"from .*{server.port}"):
    client.call("one")


def test_a_port_that_is_taken_is_an_error():
  with serving({}) as server, pytest.raises(OSError, match="in use"):
    rpc.Server({}, KEY, HOST, server.port)


def test_only_the_named_address_answers():
  with serving({}) as server, socket.socket() as client:
    assert client.connect_ex(("127.0.0.2", server.port)) != 0


def test_calls_over_ipv6():
  server = rpc.Server({"one": lambda: 1}, KEY, "::1", rpc.free_port("::1"))
  try:
    assert server.address == f"[::1]:{server.port}"
    assert rpc.Client(server.address, KEY).call("one") == 1
  finally:
    server.stop()


SERVER = """
import sys, time
from acme_qsm.distributed.coordination import rpc
server = rpc.Server({}, sys.argv[1].encode(), sys.argv[2])
print(server.port, flush=True)
time.sleep(60)
"""


def test_a_tie_is_cut_when_the_process_dies():
  process = subprocess.Popen(
    [sys.executable, "-c", SERVER, KEY.decode(), HOST],
    stdout=subprocess.PIPE,
    text=True,
  )
  with process:
    try:
      port = int(process.stdout.readline())
      cut = threading.Event()
      tie = liveness.Tie(f"{HOST}:{port}", KEY)
      tie.watch(cut.set)
      with pytest.raises(rpc.StrangerError):
        liveness.Tie(f"{HOST}:{port}", b"another")
      assert not tie.cut.wait(0.2)
    finally:
      process.kill()
    assert cut.wait(5)
    assert tie.cut.is_set()
  with pytest.raises(rpc.UnavailableError):
    liveness.Tie(f"{HOST}:{port}", KEY)
