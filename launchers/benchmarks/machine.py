"""What a benchmark ran on."""

import os
import pathlib
import platform
from typing import Any
from typing import NamedTuple

import jax


def describe() -> dict[str, Any]:
  """Describes the machine, as JSON can hold it."""
  cpu = ""
  information = pathlib.Path("/proc/cpuinfo")
  if information.exists():
    for line in information.read_text().splitlines():
      name, _, value = line.partition(":")
      if name.strip() == "model name":
        cpu = value.strip()
  return {
    "cpu": cpu or platform.processor(),
    "cores": len(os.sched_getaffinity(0)),
    "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    "device": jax.local_devices()[0].device_kind,
    "platform": platform.platform(),
    "python": platform.python_version(),
    "jax": jax.__version__,
  }


class Memory(NamedTuple):
  """Memory that a process takes, in bytes.

  Attributes:
    now: what is resident.
    peak: the most that ever was.
  """

  now: int
  peak: int


def memory(pid: int | None = None) -> Memory:
  """Asks Linux for the memory of a process; None for this one."""
  status = pathlib.Path("/proc", str(pid or "self"), "status").read_text()
  fields = dict(line.split(":", 1) for line in status.splitlines())
  now, peak = (
    1024 * int(fields[name].split()[0]) for name in ("VmRSS", "VmHWM")
  )
  # The kernel counts both a little late.
  return Memory(now, max(now, peak))
