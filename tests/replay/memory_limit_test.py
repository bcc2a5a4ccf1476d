"""What memory is free, and what is refused."""

import sys

import pytest

from acme_qsm.replay.memory_limit import available_memory
from acme_qsm.replay.memory_limit import require_memory

MB = 1_000_000
GIB = 1 << 30


def test_what_fits_is_not_refused():
  require_memory(1_000_000, 168, 437 * MB)
  require_memory(10**12, 168, None)


def test_what_does_not_fit_is_refused_with_the_sum():
  with pytest.raises(ValueError, match="max_replay_size") as raised:
    require_memory(1_000_000, 168, 436 * MB)
  message = str(raised.value)
  assert "1,000,000 transitions of 168 bytes = 168 MB" in message
  assert "268 MB for the rest of the run" in message
  assert "436 MB are free" in message
  # (436,000,000 - 2^28) / 168
  assert "At most 997,408 transitions fit" in message


def test_with_less_than_the_rest_needs_none_fit():
  with pytest.raises(ValueError, match="At most 0 transitions"):
    require_memory(1, 168, 1 * MB)


@pytest.fixture
def write(tmp_path):
  """Writes a file of the system's, by its path below tmp_path."""

  def write(path, text):
    path = tmp_path / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

  write("proc/meminfo", "MemTotal: 16384000 kB\nMemAvailable:  8192000 kB\n")
  return write


def available(tmp_path):
  return available_memory(tmp_path / "proc", tmp_path / "cgroup")


def test_the_machines_memory(write, tmp_path):
  assert available(tmp_path) == 8192000 * 1024


def test_a_groups_limit(write, tmp_path):
  write("proc/self/cgroup", "0::/job/worker\n")
  # The group's own is wide, its parent's is not; the root has none.
  write("cgroup/job/worker/memory.max", "max\n")
  write("cgroup/job/worker/memory.current", "1000\n")
  write("cgroup/job/memory.max", f"{4 * GIB}\n")
  write("cgroup/job/memory.current", f"{3 * GIB}\n")
  write(
    "cgroup/job/memory.stat",
    f"anon {GIB}\nfile {2 * GIB}\ninactive_file {GIB // 2}\n",
  )
  # What was read from files gives way.
  assert available(tmp_path) == GIB + GIB // 2


def test_a_limit_of_a_containers_root(write, tmp_path):
  write("proc/self/cgroup", "0::/\n")
  write("cgroup/memory.max", f"{GIB}\n")
  write("cgroup/memory.current", f"{2 * GIB}\n")
  assert available(tmp_path) == 0


def test_a_limit_of_the_first_version(write, tmp_path):
  write("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/on/the/host\n0::/\n")
  write("cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
  write("cgroup/memory/memory.usage_in_bytes", f"{GIB}\n")
  write("cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 7\n")
  assert available(tmp_path) == GIB + 7


def test_no_limit_of_the_first_version(write, tmp_path):
  write("proc/self/cgroup", "4:memory:/\n")
  write("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
  write("cgroup/memory/memory.usage_in_bytes", "1\n")
  assert available(tmp_path) == 8192000 * 1024


def test_this_machine_has_memory():
  free = available_memory()
  if sys.platform in ("linux", "darwin"):
    assert free is not None
  if free is not None:
    require_memory(1_000, 168, free)
    with pytest.raises(ValueError, match="does not fit"):
      require_memory(10**15, 168, free)
