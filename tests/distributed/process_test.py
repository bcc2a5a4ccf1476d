"""How a run's processes start, by real forks."""

import json
import os
import subprocess
import sys

import pytest

NOWHERE = "127.0.0.1:9"


def run_python(code, **kwargs):
  done = subprocess.run(
    [sys.executable, "-c", code],
    stdin=subprocess.DEVNULL,
    capture_output=True,
    text=True,
    **kwargs,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout, done.stderr
  return done.stdout


@pytest.mark.acme
def test_what_is_loaded_can_be_forked_and_a_fork_heeds_its_environment(
  tmp_path,
):
  """Though JAX, TensorFlow and numpy were loaded before it was set."""
  code = """
import json, os, sys
from acme_qsm.distributed.processes import process
process.load()
links = [
  os.readlink(f"/proc/self/fd/{number}")
  for number in os.listdir("/proc/self/fd")
  if os.path.exists(f"/proc/self/fd/{number}")
]
import jax, numpy as np
before = [
  len(os.listdir("/proc/self/task")),
  sum("socket" in link for link in links),
  jax._src.xla_bridge.backends_are_initialized(),
  "OMP_NUM_THREADS" in os.environ,
]
np.random.seed(0)
if os.fork() == 0:
  process._become("actor_0")
  print(json.dumps([
    *before,
    jax.default_backend(),
    jax.config.values["jax_disable_most_optimizations"],
    "multi_thread_eigen=false" in os.environ["XLA_FLAGS"],
    len(jax.devices()),
    os.environ["OMP_NUM_THREADS"],
    np.random.rand() == np.random.RandomState(0).rand(),
    open("/proc/self/comm").read(),
  ]), flush=True)
  os._exit(0)
os.wait()
"""
  variables = {
    "JAX_PLATFORMS": "cuda",
    "JAX_PLATFORM_NAME": "gpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
  }
  environment = {**os.environ, **variables}
  environment.pop("OMP_NUM_THREADS", None)
  seen = json.loads(run_python(code, env=environment, cwd=tmp_path))
  before = [1, 0, False, False]
  assert seen == [*before, "cpu", True, True, 3, "1", False, "actor_0\n"]


def test_a_process_is_forked_or_started_afresh_where_there_is_a_thread():
  code = f"""
import json, os, signal, threading, time
import psutil
from acme_qsm.distributed.processes import process

# As a launcher does while it starts processes.
held = (signal.SIGHUP, signal.SIGUSR1)
signal.pthread_sigmask(signal.SIG_BLOCK, held)
told = process.Assignment(b"", b"key", "127.0.0.1", {NOWHERE!r}, None)
seen = []
for _ in range(2):
  started = process.start(told, "actor_7")
  it = psutil.Process(started.pid)
  while it.name() != "actor_7":  # Which it takes on once it is ready for all.
    time.sleep(0.01)
  status = dict(
    line.split(":", 1) for line in open(f"/proc/{{it.pid}}/status")
  )
  blocked, ignored = int(status["SigBlk"], 16), int(status["SigIgn"], 16)
  seen += [
    it.cmdline() == psutil.Process().cmdline(),
    [bool(blocked & 1 << number - 1) for number in held],
    [bool(ignored & 1 << number - 1) for number in held],
  ]
  # Ctrl-C is for its launcher; SIGTERM ends it while it has nothing to save.
  it.send_signal(signal.SIGINT)
  it.send_signal(signal.SIGTERM)
  started.join()
  seen.append(started.exitcode)
  threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print(json.dumps(seen))
os._exit(0)
"""
  neither, both = [False, False], [True, True]
  assert json.loads(run_python(code).splitlines()[-1]) == [
    *(True, neither, both, -15),
    *(False, neither, both, -15),
  ]


REDIRECTED = """
import logging, sys
from acme_qsm.distributed.processes import process
process.redirect_output(sys.argv[1])
print("a" * 100_000)
print("b", file=sys.stderr)
logging.warning("c")
sys.stdout.flush()
sys.exit(7)
"""


@pytest.mark.parametrize("full", [False, True])
def test_what_is_printed_arrives_unless_the_disk_is_full(full, tmp_path):
  path = "/dev/full" if full else tmp_path / "logs" / "actor_7.log"
  done = subprocess.run([sys.executable, "-c", REDIRECTED, path])
  assert done.returncode == 7
  if not full:
    assert path.read_text() == "a" * 100_000 + "\nb\nc\n"
