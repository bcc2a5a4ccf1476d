"""Has Reverb's server ask for one address, and for itself alone.

Reverb's library calls the C library's `bind` by a pointer in a table of its
own. While `listening_on` lasts, that pointer leads here.
"""

import contextlib
import ctypes
import errno
import ipaddress
import logging
import mmap
import pathlib
import platform
import socket
import struct
from collections.abc import Iterator

import reverb  # noqa: F401  # What is not loaded cannot be found.

from acme_qsm.replay.listening.addresses import LOOPBACK
from acme_qsm.replay.listening.addresses import parse_address

_LIBRARY = "/reverb/"

# Of the ELF format (man 5 elf) and its supplement for x86-64.
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ = 2, 5, 6, 7, 8
_DT_JMPREL = 23
_R_GLOB_DAT, _R_JUMP_SLOT = 6, 7
_RELOCATION = struct.Struct("QQq")  # Offset, info, addend.
_SYMBOL_SIZE = 24

# As the letters "rwx" stand in /proc/self/maps (man 5 proc).
_PROTECTIONS = (mmap.PROT_READ, mmap.PROT_WRITE, mmap.PROT_EXEC)

_C = ctypes.CDLL(None, use_errno=True)
_BIND_TYPE = ctypes.CFUNCTYPE(
  ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, use_errno=True
)
# A program header: type, flags, offset, address, ...; the other fields are not
# needed.
_PROGRAM_HEADER = struct.Struct("IIQQQQQQ")


@contextlib.contextmanager
def listening_on(
  host: str = LOOPBACK, port: int | None = None
) -> Iterator[None]:
  """Has Reverb servers that are started within listen on one address.

  Where that is all addresses anyway, nothing is changed. On a platform where
  the servers cannot be told, they listen on all of them, with a warning.

  Args:
    host: an IP address of this machine; "0.0.0.0" for all of them.
    port: the port that they are going to listen on; None for a free one.

  Raises:
    ValueError: if host is no IP address, or if the port is taken.
    BaseException: what was raised while a server asked for its address, such as
      KeyboardInterrupt at Ctrl-C; that server was told that it has none.
  """
  address = parse_address(host)
  slots = [] if address.is_unspecified else _find_slots("bind", _LIBRARY)
  if not slots:
    if not address.is_unspecified:
      logging.warning(
        "Reverb's server listens on all interfaces of this machine, and not "
        "only on %s: it can be told so on Linux on x86-64 alone. It has no "
        "authentication: whoever can reach this machine can read, fill and "
        "empty replay, unless a firewall keeps them from it.",
        host,
      )
    _require_free(port)
    yield
    return
  failures: list[BaseException] = []
  bind = _make_bind(address, failures)
  pointer = ctypes.cast(bind, ctypes.c_void_p).value
  with contextlib.ExitStack() as stack:
    for slot in slots:
      stack.callback(_exchange, slot, _exchange(slot, pointer))
    try:
      yield
    finally:
      if failures:
        raise failures[0]


def _require_free(port: int | None) -> None:
  """Raises ValueError if a port is taken: gRPC would share it."""
  if port is None:
    return
  with socket.socket() as probe:
    # Connections of a server that is gone do not keep the port.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(("", port))
    except OSError as error:
      raise ValueError(f"Port {port} cannot be had: {error}.") from error


def _make_bind(
  address: ipaddress.IPv4Address | ipaddress.IPv6Address,
  failures: list[BaseException],
):
  """Makes a `bind` that puts an address in the place of "any address".

  Args:
    address: the address.
    failures: gets what is raised within: who calls is C, and is told -1.
  """
  real_bind = _BIND_TYPE(("bind", _C))
  v6 = address.packed
  if address.version == 4:
    # As a socket for both protocols names an IPv4 address; any stays any.
    v6 = bytes(16) if not any(v6) else bytes(10) + b"\xff\xff" + v6
  off = ctypes.c_int(0)

  def bind(descriptor: int, pointer: int, size: int) -> int:
    try:
      return bind_to_address(descriptor, pointer, size)
    except BaseException as error:
      # Else ctypes answers 0, which says that it is bound.
      failures.append(error)
      ctypes.set_errno(errno.EINVAL)
      return -1

  def bind_to_address(descriptor: int, pointer: int, size: int) -> int:
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
  cell = ctypes.c_void_p.from_address(slot)
  # The loader makes such pages read-only once it is done with them: what they
  # hold is a way to have any code called.
  protection = _protection_of(slot)
  _protect(slot, protection | mmap.PROT_WRITE)
  try:
    original = cell.value
    cell.value = pointer
  finally:
    _protect(slot, protection)
  return original


def _protection_of(position: int) -> int:
  """What the process may do with the page of a position in its memory."""
  for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
    bounds, permissions = line.split()[:2]
    start, end = (int(bound, 16) for bound in bounds.split("-"))
    if start <= position < end:
      flags = zip(permissions, _PROTECTIONS, strict=False)
      return sum(flag for letter, flag in flags if letter != "-")
  raise RuntimeError(f"Nothing is mapped at {position:#x}.")


def _protect(position: int, protection: int) -> None:
  page = position & ~(mmap.PAGESIZE - 1)
  if _C.mprotect(
    ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), protection
  ):
    raise RuntimeError("The server's listening address cannot be set.")
