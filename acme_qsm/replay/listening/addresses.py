"""Addresses as text: host:port, with brackets around an IPv6 host."""


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
