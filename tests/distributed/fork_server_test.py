"""Real fork servers, and the processes that they fork."""

import contextlib
import itertools
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from acme_qsm.distributed.processes import fork_server
from acme_qsm.distributed.processes import process
from acme_qsm.distributed.processes import supervision

NOWHERE = "127.0.0.1:9"


def wait_until(condition, seconds=60):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.02)


def is_gone(pid):
  try:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return True


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv(fork_server.SOCKET_VARIABLE, "")  # Put back in the end.
  # Quick to load: what is forked here does not come to its work.
  started = fork_server.start(modules=())
  yield started
  started.kill()
  started.wait()


@pytest.fixture
def run_file(tmp_path):
  path = tmp_path / "run"
  process.write_run_file(str(path), b"key", "127.0.0.1", b"")
  return str(path)


class Started:
  """A process that was started as a supervisor starts it."""

  def __init__(self, folder, path, address=NOWHERE, **environment):
    self._log = folder / "log"
    self.beats, end = os.pipe()
    with open(self._log, "ab") as log:
      start = fork_server.starter(path, "actor_7", address)
      self.process = start(
        log, end, {supervision.HEARTBEAT_VARIABLE: str(end), **environment}
      )
    os.close(end)

  @property
  def log(self):
    return self._log.read_text()

  def wait_for_beat(self):
    assert os.read(self.beats, 1) == b"."


def children(server):
  return psutil.Process(server.pid).children()


@pytest.mark.acme
def test_what_it_loads_can_be_forked():
  """No thread, no backend, and no connection of any kind is there before."""
  code = f"""
import importlib, os
from acme_qsm.distributed.processes import fork_server
for name in {fork_server.NODES!r}:
  importlib.import_module(name)
fork_server.require_forkable()
links = []
for descriptor in os.listdir("/proc/self/fd"):
  try:
    links.append(os.readlink(f"/proc/self/fd/{{descriptor}}"))
  except OSError:  # That of the listing itself.
    pass
print(*links)
"""
  done = subprocess.run(
    [sys.executable, "-c", code],
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    env={**os.environ, **process.ONE_THREAD},
  )
  assert done.returncode == 0, done.stderr
  assert "socket" not in done.stdout


def test_a_thread_is_not_forked():
  ends = threading.Event()
  thread = threading.Thread(target=ends.wait)
  thread.start()
  try:
    with pytest.raises(fork_server.CannotForkError, match="threads"):
      fork_server.require_forkable()
  finally:
    ends.set()
    thread.join()


def test_a_backend_is_not_forked():
  code = """
import os
import jax
from acme_qsm.distributed.processes import fork_server
jax.devices()
# The backend's threads would be found first.
fork_server.os.listdir = lambda path: ["1"]
fork_server.require_forkable()
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert "JAX has a backend" in done.stderr


def test_a_fork_heeds_its_own_environment(tmp_path):
  """Though JAX, TensorFlow and numpy were loaded before it was set."""
  code = """
import os, sys
import jax, numpy as np
from acme_qsm.distributed.processes import fork_server
from acme_qsm.distributed.processes import process
np.random.seed(0)
sys.stdout.flush()
if os.fork() == 0:
  fork_server._become(
    "actor_0",
    {
      "JAX_PLATFORM_NAME": os.environ["JAX_PLATFORM_NAME"],
      **process.environment_variables("actor_0"),
      "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
      "JAX_COMPILATION_CACHE_DIR": "a folder",
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.25",
      "JAX_ENABLE_X64": "true",
      "JAX_OF_NO_MEANING": "1",
      "A_VARIABLE": "a value",
    },
    5,
  )
  print(
    len(jax.devices()),
    jax.default_backend(),
    jax.config.jax_compilation_cache_dir,
    jax.config.jax_persistent_cache_min_compile_time_secs,
    jax.numpy.ones(1).dtype,
    os.environ["A_VARIABLE"],
    "NOT_HERS" in os.environ,
    np.random.rand() == np.random.RandomState(0).rand(),
    open("/proc/self/comm").read().strip(),
    flush=True,
  )
  os._exit(0)
os.wait()
"""
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cuda",
      "JAX_PLATFORM_NAME": "gpu",
      "NOT_HERS": "",
      **process.ONE_THREAD,
    },
    cwd=tmp_path,
  )
  expected = "3 cpu a folder 0.25 float64 a value False False actor_0\n"
  assert done.stdout == expected, done.stderr


def test_a_process_is_forked_and_tells_how_it_ends(server, tmp_path):
  it = Started(tmp_path, str(tmp_path / "no_run_file"))
  assert it.process.wait() == 1
  assert it.process.poll() == it.process.returncode == 1
  assert "FileNotFoundError" in it.log
  assert server.poll() is None


def test_a_forked_process_beats_and_is_killed(server, tmp_path, run_file):
  it = Started(tmp_path, run_file)
  it.wait_for_beat()
  (child,) = children(server)
  assert pathlib.Path(f"/proc/{child.pid}/comm").read_text() == "actor_7\n"
  assert it.process.poll() is None
  it.process.kill()
  assert it.process.wait() == -signal.SIGKILL
  assert is_gone(child.pid)


def test_a_forked_process_hears_of_a_signal(server, tmp_path, run_file):
  it = Started(tmp_path, run_file)
  it.wait_for_beat()
  (child,) = children(server)
  # Ctrl-C is for its launcher; SIGTERM ends it while it has nothing to save.
  child.send_signal(signal.SIGINT)
  child.send_signal(signal.SIGTERM)
  assert it.process.wait() == -signal.SIGTERM


def test_several_are_forked_and_end_apart(server, tmp_path, run_file):
  first, second = (Started(tmp_path, run_file) for _ in range(2))
  second.wait_for_beat()
  first.process.kill()
  first.process.wait()
  assert second.process.poll() is None
  assert len(children(server)) == 1
  second.process.kill()
  second.process.wait()


def test_a_forked_process_ends_with_who_asked_for_it(
  server, tmp_path, run_file
):
  it = Started(tmp_path, run_file)
  it.wait_for_beat()
  (child,) = children(server)
  it.process._connection.close()
  wait_until(lambda: is_gone(child.pid))
  assert server.poll() is None


def test_forked_processes_end_with_the_fork_server(server, tmp_path, run_file):
  it = Started(tmp_path, run_file)
  it.wait_for_beat()
  (child,) = children(server)
  server.kill()
  assert it.process.wait() == -signal.SIGKILL
  wait_until(lambda: is_gone(child.pid))
  it.process.kill()  # As before, it does no harm.


def test_all_end_with_who_started_the_fork_server(tmp_path, run_file):
  code = f"""
import os, time
from acme_qsm.distributed.processes import fork_server
server = fork_server.start(modules=())
beats, end = os.pipe()
start = fork_server.starter({run_file!r}, "actor_0", {NOWHERE!r})
with open(os.devnull, "ab") as log:
  process = start(log, end, {{"{supervision.HEARTBEAT_VARIABLE}": str(end)}})
os.read(beats, 1)
print(server.pid, flush=True)
time.sleep(600)
"""
  with subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
  ) as starter:
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    (child,) = psutil.Process(pid).children()
    starter.kill()
  wait_until(lambda: is_gone(pid))
  wait_until(lambda: is_gone(child.pid))


@pytest.mark.parametrize("socket", [None, "nobody listens here"])
def test_without_a_fork_server_a_process_is_started(
  socket, tmp_path, run_file, monkeypatch
):
  monkeypatch.delenv(fork_server.SOCKET_VARIABLE, raising=False)
  if socket is not None:
    monkeypatch.setenv(fork_server.SOCKET_VARIABLE, socket)
  it = Started(tmp_path, run_file)
  assert isinstance(it.process, subprocess.Popen)
  it.wait_for_beat()
  it.process.kill()
  it.process.wait()


def test_a_fork_server_that_cannot_load_is_done_without(
  tmp_path, run_file, monkeypatch
):
  monkeypatch.setenv(fork_server.SOCKET_VARIABLE, "")
  server = fork_server.start(modules=("no_such_module",))
  it = Started(tmp_path, run_file)
  assert isinstance(it.process, subprocess.Popen)
  with contextlib.suppress(ProcessLookupError):
    it.process.kill()
  it.process.wait()
  assert server.wait() == 1


def test_a_fork_server_with_threads_is_done_without(
  tmp_path, run_file, monkeypatch
):
  monkeypatch.setenv(fork_server.SOCKET_VARIABLE, "")
  module = tmp_path / "module_with_a_thread.py"
  module.write_text(
    "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
  )
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
  server = fork_server.start(modules=(module.stem,))
  it = Started(tmp_path, run_file)
  assert isinstance(it.process, subprocess.Popen)
  it.process.kill()
  it.process.wait()
  assert server.wait() == 1


FAILS_ONCE = """
import errno
import os

fork, num_forks = os.fork, 0


def failing():
  global num_forks
  num_forks += 1
  if num_forks == 2:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
  return fork()


os.fork = failing
"""


def test_a_machine_without_room_for_a_process_ends_no_other(
  tmp_path, run_file, monkeypatch
):
  monkeypatch.setenv(fork_server.SOCKET_VARIABLE, "")
  module = tmp_path / "module_whose_second_fork_fails.py"
  module.write_text(FAILS_ONCE)
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
  server = fork_server.start(modules=(module.stem,))
  first, second, third = (Started(tmp_path, run_file) for _ in range(3))
  assert isinstance(second.process, subprocess.Popen)
  assert isinstance(third.process, fork_server.ForkedProcess)
  third.wait_for_beat()
  assert first.process.poll() is None
  for it in (first, second, third):
    it.process.kill()
    it.process.wait()
  # It is told how they ended: the server has not ended before.
  assert server.poll() is None
  server.kill()
  server.wait()


@pytest.mark.parametrize("first", ["dies", "is killed"])
def test_a_process_that_dies_while_it_is_killed_ends_no_other(
  first, server, tmp_path, run_file
):
  other, it = (Started(tmp_path, run_file) for _ in range(2))
  it.wait_for_beat()
  _, child = sorted(children(server), key=lambda each: each.pid)
  # Of both, the server hears at once.
  server.send_signal(signal.SIGSTOP)
  acts = [lambda: child.send_signal(signal.SIGTERM), it.process.kill]
  for act in acts if first == "dies" else reversed(acts):
    act()
  wait_until(lambda: child.status() == psutil.STATUS_ZOMBIE)
  server.send_signal(signal.SIGCONT)
  assert it.process.wait() == -signal.SIGTERM
  other.wait_for_beat()
  assert other.process.poll() is None
  assert isinstance(
    Started(tmp_path, run_file).process, fork_server.ForkedProcess
  )
  assert server.poll() is None


def test_a_server_without_descriptors_ends_no_process(
  server, tmp_path, run_file
):
  first = Started(tmp_path, run_file)
  first.wait_for_beat()
  _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  opened = {int(name) for name in os.listdir(f"/proc/{server.pid}/fd")}

  def leave(spare):
    free = (number for number in range(most) if number not in opened)
    limit = next(itertools.islice(free, spare, None))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, most))

  # Enough to hear who asks, but for no more.
  for spare in (1, 2, 3):
    leave(spare)
    it = Started(tmp_path, run_file)
    assert isinstance(it.process, subprocess.Popen)
    it.process.kill()
    it.process.wait()
  assert psutil.Process(server.pid).num_fds() == len(opened)
  # Too few for that: who asks waits until there are.
  leave(0)
  later = threading.Timer(0.3, leave, (100,))
  later.start()
  it = Started(tmp_path, run_file)
  later.join()
  assert isinstance(it.process, fork_server.ForkedProcess)
  assert first.process.poll() is None
