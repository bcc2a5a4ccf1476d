"""Addresses that a server can listen on, and how they are written."""

import ipaddress

LOOPBACK = "127.0.0.1"
"""The address that only this machine can reach."""


def parse_address(
  host: str,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
  """Parses the IP address that a server is to listen on.

  Args:
    host: the address.

  Returns:
    The address; `is_loopback` tells whether only this machine can reach it,
    `is_unspecified` whether it stands for all addresses of this machine.

  Raises:
    ValueError: if host is no IP address.
  """
  try:
    return ipaddress.ip_address(host)
  except ValueError as error:
    raise ValueError(
      f"A server can listen on an IP address of this machine, not {host!r}."
    ) from error


def join(host: str, port: int) -> str:
  """Writes an address, as gRPC reads it.

  Args:
    host: an IP address or a name.
    port: the port.

  Returns:
    The address: `127.0.0.1:80`, `[::1]:80`.
  """
  return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, int]:
  """Reads an address that `join` wrote.

  Args:
    address: the address.

  Returns:
    Its host, without brackets, and its port.

  Raises:
    ValueError: if it has no port, or more than one could be meant.
  """
  host, _, port = address.rpartition(":")
  if host.startswith("[") and host.endswith("]"):
    host = host[1:-1]
  elif ":" in host:
    raise ValueError(f"An IPv6 address needs brackets: [{host}]:{port}.")
  return host, int(port)
