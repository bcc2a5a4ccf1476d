"""Where a real Reverb server can be reached, and whom it shares a port with."""

import contextlib
import socket

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import pytest
import reverb

from acme_qsm.replay.listening import bind as listening

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
