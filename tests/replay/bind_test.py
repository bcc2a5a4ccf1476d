"""Where a real Reverb server can be reached, and whom it shares a port with."""

import contextlib
import importlib.util
import logging
import mmap
import pathlib
import platform
import shutil
import socket
import subprocess
import sys
from unittest import mock

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import pytest
import reverb

from acme_qsm.replay.listening import bind as listening

pytestmark = pytest.mark.acme

# Linux answers on all of 127.0.0.0/8: another address of this machine.
OTHER_ADDRESS = "127.0.0.2"


@contextlib.contextmanager
def running_server(port):
  server = reverb.Server([reverb.Table.queue("queue", 10)], port=port)
  try:
    yield
  finally:
    server.stop()


def is_open(host, port):
  with contextlib.closing(socket.socket()) as client:
    return client.connect_ex((host, port)) == 0


@pytest.fixture
def port():
  with socket.socket() as probe:
    probe.bind(("", 0))
    return probe.getsockname()[1]


@pytest.mark.parametrize(
  ("host", "reachable"),
  [
    ("127.0.0.1", {"127.0.0.1"}),
    (OTHER_ADDRESS, {OTHER_ADDRESS}),
    ("0.0.0.0", {"127.0.0.1", OTHER_ADDRESS}),
  ],
)
def test_only_the_named_address_answers(port, host, reachable):
  with listening.listening_on(host), running_server(port):
    assert {
      address
      for address in ("127.0.0.1", OTHER_ADDRESS)
      if is_open(address, port)
    } == reachable
    (client_host,) = reachable & {host, "127.0.0.1"}
    client = reverb.Client(f"{client_host}:{port}")
    client.insert(3.0, {"queue": 1.0})
    assert client.server_info(5)["queue"].current_size == 1


def test_the_default_is_loopback(port):
  with listening.listening_on(), running_server(port):
    assert is_open("127.0.0.1", port)
    assert not is_open(OTHER_ADDRESS, port)


def test_a_second_server_on_the_port_is_refused(port):
  with (
    listening.listening_on(),
    running_server(port),
    pytest.raises(ValueError, match="Failed to BuildAndStart"),
    running_server(port),
  ):
    pass


def test_outside_the_context_nothing_is_changed(port):
  with listening.listening_on():
    pass
  with running_server(port):
    assert is_open(OTHER_ADDRESS, port)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_in_the_callback_is_no_address(port, error):
  """A socket that only seems bound would listen at any address and port."""

  def fail(*args):
    raise error("while a server asks for its address")

  with (
    pytest.raises(error, match="asks for its address") as caught,
    listening.listening_on(),
    mock.patch.object(listening.struct, "unpack_from", fail),
    running_server(port),
  ):
    pass
  assert "Failed to BuildAndStart" in str(caught.value.__context__)
  with listening.listening_on(), running_server(port):
    assert is_open("127.0.0.1", port)


def test_what_cannot_be_changed_everywhere_is_changed_nowhere(
  port, monkeypatch
):
  slots = listening._find_slots("bind", "/reverb/")
  monkeypatch.setattr(
    listening, "_find_slots", lambda *args: [*slots, mmap.PAGESIZE]
  )
  with (
    pytest.raises(RuntimeError, match="Nothing is mapped"),
    listening.listening_on(),
  ):
    pass
  with running_server(port):
    assert is_open(OTHER_ADDRESS, port)


@pytest.mark.parametrize("host", ["localhost", "", "256.0.0.1"])
def test_only_ip_addresses(host):
  with (
    pytest.raises(ValueError, match="IP address of this machine"),
    listening.listening_on(host),
  ):
    pass


def test_a_foreign_address_is_an_error(port):
  # 192.0.2.0/24 is kept for documentation (RFC 5737): no machine has it.
  with (
    listening.listening_on("192.0.2.1"),
    pytest.raises(ValueError, match="Failed to BuildAndStart"),
    running_server(port),
  ):
    pass


def read_protections():
  """What may be done with each page of Reverb's libraries."""
  found = {}
  for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
    bounds, permissions, *_, path = line.split()
    if "/reverb/" in path:
      start, end = (int(bound, 16) for bound in bounds.split("-"))
      for page in range(start, end, mmap.PAGESIZE):
        found[page] = permissions
  return found


def test_the_memory_s_protection_is_given_back(port):
  before = read_protections()
  assert before
  with listening.listening_on():
    assert read_protections() == before
    with running_server(port):
      pass
  assert read_protections() == before


@pytest.fixture
def unknown_platform(monkeypatch):
  """A platform whose libraries are not understood."""
  monkeypatch.setattr(platform, "machine", lambda: "aarch64")


@pytest.mark.usefixtures("unknown_platform")
def test_elsewhere_the_server_runs_with_a_warning(port, caplog):
  with listening.listening_on("127.0.0.1", port), running_server(port):
    assert is_open("127.0.0.1", port)
    assert is_open(OTHER_ADDRESS, port)
  (record,) = caplog.records
  assert record.levelno == logging.WARNING
  assert "listens on all interfaces" in record.message
  assert "not only on 127.0.0.1" in record.message
  assert "no authentication" in record.message
  assert "firewall" in record.message


@pytest.mark.usefixtures("unknown_platform")
def test_all_addresses_need_nothing_of_the_platform(port, caplog):
  with listening.listening_on("0.0.0.0", port), running_server(port):
    assert is_open(OTHER_ADDRESS, port)
  assert not caplog.records


@pytest.mark.usefixtures("unknown_platform")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1"])
def test_a_taken_port_is_refused_without_the_platform(port, host):
  with (
    listening.listening_on(host, port),
    running_server(port),
    pytest.raises(ValueError, match=f"Port {port} cannot be had"),
    listening.listening_on(host, port),
  ):
    pass
  # It is free again at once.
  with listening.listening_on(host, port), running_server(port):
    pass


# A library that the loader has not seen yet is one that it takes its lock for.
FIND_WHILE_LOADING = """
import ctypes
import pathlib
import sys
import threading

import reverb  # noqa: F401

from acme_qsm.replay.listening import bind

sys.setswitchinterval(1e-6)
libraries = map(str, pathlib.Path(sys.argv[1]).iterdir())
thread = threading.Thread(target=lambda: list(map(ctypes.CDLL, libraries)))
thread.start()
while thread.is_alive():
  assert bind._find_slots("bind", "/reverb/")
"""


@pytest.mark.slow
def test_no_lock_of_the_loader_is_held(tmp_path):
  # One that is not large.
  library = importlib.util.find_spec("kiwisolver._cext").origin
  for i in range(50):
    shutil.copy(library, tmp_path / f"{i}.so")
  subprocess.run(
    [sys.executable, "-c", FIND_WHILE_LOADING, tmp_path],
    check=True,
    timeout=120,
  )


def test_addresses_need_no_more_than_python():
  done = subprocess.run(
    [
      *(sys.executable, "-c"),
      "import sys; from acme_qsm.replay.listening import addresses; "
      "print({'ctypes', 'reverb', 'jax'} & set(sys.modules))",
    ],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == "set()\n"
