"""A run whose processes are mostly threads of a test."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

from acme_qsm.distributed import nodes
from acme_qsm.distributed.coordination import link as link_lib
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.run_coordinator import run_coordinator
from acme_qsm.distributed.processes.process import write_run_file
from acme_qsm.experiments.records import checkpointing

_MAX_FAILURES = 3


class ThreadedRun:
  """A run with a real coordinator, of which a test starts what it needs.

  Attributes:
    run: what its processes are told.
    client: the coordinator's.
    phase: how it ended, once `wait` has returned.
  """

  def __init__(self, plan, folder):
    self.run = pickle.loads(plan.run)
    self._plan = plan
    self._run_file = folder / "run.pickle"
    write_run_file(self._run_file, plan.key, self.run.host, plan.run)
    port = rpc.free_port(self.run.host)
    self._address = f"{self.run.host}:{port}"
    self.client = rpc.Client(self._address, self.run.key)
    self.phase = None
    self.processes = []
    self._coordinator = self._start_thread(
      "coordinator", lambda: self._coordinate(port)
    )
    self.wait_until(self._coordinator_answers)
    self._actor = None

  def _coordinate(self, port):
    self.phase = run_coordinator(self._plan.coordinator, port)

  def _coordinator_answers(self):
    with contextlib.suppress(ConnectionError):
      return bool(self.client.call("status"))
    return False

  def _start_thread(self, name, target):
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread

  def link(self, name):
    client = rpc.Client(self._address, self.run.key)
    return link_lib.Link(name, client, host=self.run.host, end_process=None)

  def start(self, name):
    """Starts a process's work in a thread, again where it fails."""

    def run():
      for _ in range(_MAX_FAILURES):
        link = self.link(name)
        try:
          nodes.run_node(self.run, link)
          return
        except Exception as error:
          link.close()
          self.client.call("note", f"{name}: {error!r}")

    return self._start_thread(name, run)

  def start_process(self, name):
    """Starts one in a process of its own, which can be stopped."""
    module = "acme_qsm.distributed.processes.process"
    process = subprocess.Popen(
      [sys.executable, "-m", module, self._run_file, name, self._address],
      env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    self.processes.append(process)
    return process

  def act(self, steps, state="acting"):
    """Reports as an actor that has made so many steps."""
    if self._actor is None:
      self._actor = self.link("actor_0")
    self._actor.state = state
    self._actor.totals = {"actor_steps": float(steps)}
    self._actor.report()

  def status(self):
    return self.client.call("status")

  def node(self, name):
    return self.status()["nodes"][name]

  def count(self, name):
    return self.status()["counts"].get(name, 0)

  def checkpoint(self):
    return checkpointing.Checkpointer(self.run.path / "checkpoints").latest()

  def comes(self, condition, seconds):
    """Whether something happens in so many seconds that must not happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
      time.sleep(0.05)
    return condition()

  def wait_until(self, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
      assert time.monotonic() < end
      time.sleep(0.05)

  def wait(self, seconds=120):
    """Waits for the end of the coordinator; returns how the run ended."""
    if self._actor is not None:
      self._actor.state = "done"
    self._coordinator.join(seconds)
    assert not self._coordinator.is_alive(), self.status()
    return self.phase.value

  def end(self):
    """Whatever happened, leaves nothing behind."""
    with contextlib.suppress(ConnectionError):
      self.client.call("fail", "the test is over")
    for process in self.processes:
      process.send_signal(signal.SIGCONT)
      process.kill()
      process.wait()
    if self._actor is not None:
      self._actor.state = "done"
    self._coordinator.join(60)
