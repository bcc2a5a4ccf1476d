"""Where Reverb's server listens.

It takes every interface of the machine and has no authentication; and gRPC lets
a second server start on a port that is taken, and shares the connections out
between the two. It cannot be told otherwise. `listening_on` makes it ask for
the address that one names, and for itself alone, by standing between it and the
C library's `bind`.
"""

import contextlib
import ctypes
import errno
import ipaddress
import platform
import socket
import struct
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"

_LIBRARY = "/reverb/"

# Of the ELF format (man 5 elf) and its supplement for x86-64.
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ = 2, 5, 6, 7, 8
_DT_JMPREL = 23
_R_GLOB_DAT, _R_JUMP_SLOT = 6, 7
_RELOCATION = struct.Struct("QQq")  # Offset, info, addend.
_SYMBOL_SIZE = 24

_PAGE = 4096
_PROT_READ_WRITE = 3

_C = ctypes.CDLL(None, use_errno=True)
_BIND_TYPE = ctypes.CFUNCTYPE(
  ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, use_errno=True
)
# A program header: type, flags, offset, address, ...; the other fields are not
# needed.
_PROGRAM_HEADER = struct.Struct("IIQQQQQQ")


@contextlib.contextmanager
def listening_on(host: str = LOOPBACK) -> Iterator[None]:
  """Has Reverb servers that are started within listen on one address.

  Args:
    host: an IP address of this machine; "0.0.0.0" for all of them.

  Raises:
    ValueError: if host is no IP address.
    RuntimeError: if the servers of this platform cannot be told, so that they
      would listen everywhere; or if Reverb has not been imported.
  """
  address = parse_address(host)
  slots = _find_slots("bind", _LIBRARY)
  if not slots:
    raise RuntimeError(
      f"Reverb's server cannot be told to listen on {host} only: there is no "
      "Reverb for Linux on x86-64 in this process."
    )
  bind = _make_bind(address)
  pointer = ctypes.cast(bind, ctypes.c_void_p).value
  originals = [_exchange(slot, pointer) for slot in slots]
  try:
    yield
  finally:
    for slot, original in zip(slots, originals, strict=True):
      _exchange(slot, original)


def parse_address(
  host: str,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
  """Parses the IP address that a server is to listen on.

  Args:
    host: the address.

  Returns:
    The address; `is_loopback` tells whether only this machine can reach it.

  Raises:
    ValueError: if host is no IP address.
  """
  try:
    return ipaddress.ip_address(host)
  except ValueError as error:
    raise ValueError(
      f"A server can listen on an IP address of this machine, not {host!r}."
    ) from error


def _make_bind(address: ipaddress.IPv4Address | ipaddress.IPv6Address):
  """Makes a `bind` that puts an address in the place of "any address"."""
  real_bind = _BIND_TYPE(("bind", _C))
  v6 = address.packed
  if address.version == 4:
    # As a socket for both protocols names an IPv4 address; any stays any.
    v6 = bytes(16) if not any(v6) else bytes(10) + b"\xff\xff" + v6
  off = ctypes.c_int(0)

  def bind(descriptor: int, pointer: int, size: int) -> int:
    raw = bytearray(ctypes.string_at(pointer, size))
    (family,) = struct.unpack_from("H", raw)
    if family in (socket.AF_INET, socket.AF_INET6):
      # A port that is taken is an error.
      _C.setsockopt(
        descriptor,
        socket.SOL_SOCKET,
        socket.SO_REUSEPORT,
        ctypes.byref(off),
        ctypes.sizeof(off),
      )
    if family == socket.AF_INET6 and not any(raw[8:24]):
      raw[8:24] = v6
    elif family == socket.AF_INET and not any(raw[4:8]):
      if address.version == 6:
        ctypes.set_errno(errno.EADDRNOTAVAIL)
        return -1
      raw[4:8] = address.packed
    buffer = (ctypes.c_char * len(raw)).from_buffer(raw)
    return real_bind(descriptor, ctypes.addressof(buffer), size)

  return _BIND_TYPE(bind)


def _find_slots(function: str, library_path: str) -> list[int]:
  """Addresses of the pointers by which loaded libraries call a function."""
  if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
    return []
  # Read, not asked of the loader: it calls back while it holds its lock, for
  # which another thread's import may wait with the interpreter's.
  positions: dict[str, int] = {}
  with open("/proc/self/maps") as maps:
    for line in maps:
      span, permissions, offset, _, _, *path = line.split(maxsplit=5)
      if path and library_path in path[0] and permissions.startswith("r"):
        start = int(span.partition("-")[0], 16)
        if int(offset, 16) == 0:
          positions.setdefault(path[0], start)
  return [
    slot
    for position in positions.values()
    for slot in _find_slots_of(position, function.encode())
  ]


def _find_slots_of(position: int, function: bytes) -> Iterator[int]:
  """The same of what is mapped at a position, if it is a library."""
  if ctypes.string_at(position, 4) != b"\x7fELF":
    return
  (headers,) = struct.unpack("Q", ctypes.string_at(position + 32, 8))
  _, num_headers = struct.unpack("HH", ctypes.string_at(position + 54, 4))
  found = [
    (kind, address)
    for kind, _, _, address, *_ in _PROGRAM_HEADER.iter_unpack(
      ctypes.string_at(position + headers, num_headers * _PROGRAM_HEADER.size)
    )
  ]
  # Addresses in the file are relative to the first that is loaded.
  base = position - min(address for kind, address in found if kind == _PT_LOAD)
  dynamic: dict[int, int] = {}
  for kind, address in found:
    if kind == _PT_DYNAMIC:
      entry_at = base + address
      while (entry := struct.unpack("qQ", ctypes.string_at(entry_at, 16)))[0]:
        dynamic[entry[0]] = entry[1]
        entry_at += 16
  for table, size in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
    if table not in dynamic:
      continue
    relocations = ctypes.string_at(dynamic[table], dynamic[size])
    for offset, info, _ in _RELOCATION.iter_unpack(relocations):
      if info & 0xFFFFFFFF not in (_R_GLOB_DAT, _R_JUMP_SLOT):
        continue
      symbol = dynamic[_DT_SYMTAB] + _SYMBOL_SIZE * (info >> 32)
      (name,) = struct.unpack("I", ctypes.string_at(symbol, 4))
      if ctypes.string_at(dynamic[_DT_STRTAB] + name) == function:
        yield base + offset


def _exchange(slot: int, pointer: int | None) -> int | None:
  """Writes a pointer into a slot, and returns what was there."""
  # The loader makes such pages read-only once it is done with them.
  page = slot & ~(_PAGE - 1)
  if _C.mprotect(
    ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), _PROT_READ_WRITE
  ):
    raise RuntimeError("The server's listening address cannot be set.")
  cell = ctypes.c_void_p.from_address(slot)
  original = cell.value
  cell.value = pointer
  return original
