"""The distributed launcher with Ray: one machine, and a cluster of three.

The cluster's machines are network namespaces, each with an address of its own,
joined by a bridge: what is bound to one's loopback, the others cannot reach.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.acme, pytest.mark.ray]

RAY = pathlib.Path(sys.executable).with_name("ray")
_GIGABYTE = 10**9


class Machines:
  """Network namespaces that stand for machines of a network."""

  def __init__(self, count):
    self._names = [f"acme_qsm_{os.getpid()}_{i}" for i in range(count + 1)]
    hub, *machines = self._names
    self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]
    self._ip("netns", "add", hub)
    self._ip("-n", hub, "link", "add", "bridge", "type", "bridge")
    self._ip("-n", hub, "link", "set", "bridge", "up")
    for i, (name, address) in enumerate(
      zip(machines, self.addresses, strict=True)
    ):
      self._ip("netns", "add", name)
      self._ip(
        *("-n", name, "link", "add", "eth0", "type", "veth"),
        *("peer", "name", f"port{i}", "netns", hub),
      )
      self._ip("-n", hub, "link", "set", f"port{i}", "master", "bridge", "up")
      self._ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
      self._ip("-n", name, "link", "set", "eth0", "up")
      self._ip("-n", name, "link", "set", "lo", "up")

  def within(self, index):
    """What a command has to begin with to run on a machine."""
    return ["ip", "netns", "exec", self._names[index + 1]]

  def plug(self, index, state):
    """Cuts ("down") or joins ("up") a machine's connection to the others."""
    self._ip("-n", self._names[0], "link", "set", f"port{index}", state)

  def processes(self):
    """All processes on the machines."""
    found = []
    for name in self._names:
      output = self._ip("netns", "pids", name)
      found += [int(pid) for pid in output.split()]
    return found

  def remove(self):
    for pid in self.processes():
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for name in self._names:
      self._ip("netns", "delete", name)

  def _ip(self, *arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
      raise PermissionError(f"ip {' '.join(arguments)}: {done.stderr}")
    return done.stdout


@pytest.fixture
def machines():
  try:
    made = Machines(3)
  except (PermissionError, FileNotFoundError) as error:
    pytest.skip(f"no network namespaces here: {error}")
  yield made
  made.remove()


def join_cluster(machines, index, folder, *arguments):
  """Has a machine join the cluster of the first one, or be the first."""
  address = machines.addresses[index]
  role = (
    ["--address", f"{machines.addresses[0]}:6379"]
    if index
    else ["--head", "--port", "6379", "--include-dashboard", "false"]
  )
  subprocess.run(
    [
      *machines.within(index),
      *(RAY, "start", *role, "--node-ip-address", address),
      # Ray's sockets have no room for long paths.
      *(("--temp-dir", str(folder)) if not index else ()),
      *arguments,
    ],
    env={
      **os.environ,
      "RAY_raylet_start_wait_time_s": "120",
      "RAY_USAGE_STATS_ENABLED": "0",
      # As README says: else Ray gives a machine up that is cut off for so long.
      "RAY_health_check_failure_threshold": "20",
    },
    check=True,
    timeout=180,
  )


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_what_a_run_on_a_cluster_survives(machines, launch, tmp_path):
  folder = f"/tmp/ray_{os.getpid()}"
  # One with a GPU, one with memory, and one with neither.
  small, large = str(_GIGABYTE // 20), str(4 * _GIGABYTE)
  store = ("--object-store-memory", str(80 * 10**6))
  one = ("--num-cpus", "2", "--num-gpus", "1", "--memory", small)
  join_cluster(machines, 0, folder, *one, *store)
  for index, memory in ((1, large), (2, small)):
    join_cluster(
      machines, index, folder, "--num-cpus", "2", "--memory", memory, *store
    )
  run = launch(
    tmp_path / "run",
    *("--engine", "ray", "--ray_address", f"{machines.addresses[0]}:6379"),
    *("--num_actors", "2", "--num_steps", "1000000"),
    within=machines.within(0),
  )
  with run.fault("none"):
    run.wait_until(lambda: run.count("learner_steps") > 100)
    hosts = {name: node["host"] for name, node in run.status()["nodes"].items()}
    assert hosts["learner"] == machines.addresses[0]
    assert hosts["replay"] == machines.addresses[1]
    assert set(hosts.values()) == set(machines.addresses)

  for name in ("actor_0", "learner", "replay"):
    with run.fault(f"{name} is killed"):
      restarts = run.restarts()[name]
      os.kill(run.node(name)["pid"], signal.SIGKILL)
      run.wait_until(
        lambda name=name, restarts=restarts: run.restarts()[name] > restarts
      )
      run.goes_on(200)

  def tell_to_end(name):
    restarts = run.restarts()[name]
    os.kill(run.node(name)["pid"], signal.SIGTERM)
    run.wait_for_event(f"{name} died: it was told to end. It is started again.")
    run.wait_until(lambda: run.restarts()[name] == restarts + 1)

  with run.fault("SIGTERM to an actor"):
    tell_to_end("actor_1")
    run.goes_on()

  with run.fault("the network is cut for 30 s, and SIGTERM to the learner"):
    # The machine without GPU or memory has nothing but actors or the evaluator.
    cut_at = time.monotonic()
    machines.plug(2, "down")
    # It is not cut off, and starts again meanwhile.
    tell_to_end("learner")
    run.wait_until(lambda: time.monotonic() - cut_at >= 30)
    silent = {
      name
      for name, node in run.status()["nodes"].items()
      if node["silent_seconds"] > 20
    }
    assert silent
    assert silent <= {"actor_0", "actor_1", "evaluator"}
    machines.plug(2, "up")
    run.wait_until(
      lambda: all(run.node(name)["silent_seconds"] < 3 for name in silent)
    )
    run.goes_on()
    assert run.status()["phase"] == "acting"

  with run.fault("SIGTERM to the launcher"):
    steps = run.count()
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 128 + signal.SIGTERM
    assert run.status()["phase"] == "interrupted"
    assert run.latest().metadata["actor_steps"] >= steps
