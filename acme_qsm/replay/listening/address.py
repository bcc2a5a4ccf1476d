"""Addresses that a server can listen on."""

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
