"""What memory there is, and whether replay fits. Needs nothing."""

import os
import pathlib
from collections.abc import Iterator
from collections.abc import Mapping

# For a save, batches and compiled programs.
_LEAVE = 256 << 20


def require_memory(
  num_transitions: int,
  bytes_per_transition: int,
  available: int | None,
  num_replays: int = 1,
) -> None:
  """Refuses a replay, or several alike, that do not fit.

  Args:
    num_transitions: of a replay.
    bytes_per_transition: of one of them.
    available: bytes of memory that it can take, from `available_memory`; None
      for any.
    num_replays: how many replays the process is to hold.

  Raises:
    ValueError: if it needs more than that, with the sum.
  """
  data = num_replays * num_transitions * bytes_per_transition
  if available is None or data + _LEAVE <= available:
    return
  fitting = max(0, available - _LEAVE) // (num_replays * bytes_per_transition)
  seeds = f"{num_replays:,} seeds x " if num_replays > 1 else ""
  raise ValueError(
    f"Replay does not fit into memory: {seeds}{num_transitions:,} transitions "
    f"of {bytes_per_transition:,} bytes = {_megabytes(data)}, with "
    f"{_megabytes(_LEAVE)} for the rest of the run; "
    f"{_megabytes(available)} are free. At most {fitting:,} transitions fit"
    + (" for each seed" if seeds else "")
    + ": set a smaller max_replay_size."
  )


def available_memory(
  proc: pathlib.Path = pathlib.Path("/proc"),
  cgroups: pathlib.Path = pathlib.Path("/sys/fs/cgroup"),
) -> int | None:
  """The bytes of memory that this process can still take without swapping.

  Args:
    proc: where Linux tells about processes.
    cgroups: where it tells about control groups, of either version.

  Returns:
    What the machine has, or what the process's control groups leave it if that
    is less; None where the system does not tell.
  """
  free = [
    *_free_in_machine(proc / "meminfo"),
    *_free_in_groups(proc / "self" / "cgroup", cgroups),
  ]
  return max(0, min(free)) if free else None


def resident_memory(proc: pathlib.Path = pathlib.Path("/proc")) -> int:
  """The bytes of memory that this process has; 0 where the system won't tell.

  Args:
    proc: where Linux tells about processes.
  """
  words = _text(proc / "self" / "statm").split()
  return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if words else 0


def _free_in_machine(meminfo: pathlib.Path) -> Iterator[int]:
  kilobytes = _numbers(meminfo).get("MemAvailable:")
  if kilobytes is not None:
    yield 1024 * kilobytes
    return
  # Not Linux: of what it has, how much is free, few tell.
  for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
    if name in os.sysconf_names:
      yield os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
      return


def _free_in_groups(
  membership: pathlib.Path, cgroups: pathlib.Path
) -> Iterator[int]:
  """What each group that the process is in leaves, its parents included."""
  for line in _text(membership).splitlines():
    _, controllers, path = line.split(":", 2)
    if not controllers:
      names = ("memory.max", "memory.current", "inactive_file")
      root = cgroups
    elif "memory" in controllers.split(","):
      names = (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
      )
      root = cgroups / "memory"
    else:
      continue
    inside = pathlib.PurePosixPath(path.lstrip("/"))
    # In a container, the path may be the host's and only the root be there.
    for group in (inside, *inside.parents):
      yield from _free_in_group(root / group, *names)


def _free_in_group(
  group: pathlib.Path, limit: str, usage: str, cache: str
) -> Iterator[int]:
  numbers = [_text(group / name).strip() for name in (limit, usage)]
  # No such group, or "max": no limit.
  if all(number.isdecimal() for number in numbers):
    # Files that were read count as used, and make room when it is needed.
    reclaimable = _numbers(group / "memory.stat").get(cache, 0)
    yield int(numbers[0]) - int(numbers[1]) + reclaimable


def _numbers(path: pathlib.Path) -> Mapping[str, int]:
  """The numbers in a file of lines `name number ...`."""
  words = [line.split() for line in _text(path).splitlines()]
  return {
    word[0]: int(word[1])
    for word in words
    if len(word) > 1 and word[1].isdecimal()
  }


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text()
  except (OSError, UnicodeDecodeError):
    return ""


def _megabytes(count: int) -> str:
  return f"{count / 1e6:,.0f} MB"
