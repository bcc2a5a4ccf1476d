"""A run whose processes are mostly threads of a test."""

import contextlib
import inspect
import pickle
import threading
import time

import psutil
import pytest

from acme_qsm.distributed import nodes
from acme_qsm.distributed.coordination import link as link_lib
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.run_coordinator import run_coordinator
from acme_qsm.distributed.processes import process
from acme_qsm.experiments.records import checkpointing
from tests.distributed.launched import WaitedInVainError

_MAX_FAILURES = 3


class ThreadedRun:
  """A run with a real coordinator, of which a test starts what it needs.

  Attributes:
    run: what its processes are told.
    client: the coordinator's.
    phase: how it ended, once `wait` has returned.
  """

  def __init__(self, plan):
    self.run = pickle.loads(plan.run)
    self._plan = plan
    port = rpc.free_port(self.run.host)
    self._address = f"{self.run.host}:{port}"
    self._assignment = process.Assignment(
      plan.run, plan.key, self.run.host, self._address, None
    )
    self.client = rpc.Client(self._address, self.run.key)
    self.phase = None
    self._started = []
    self._processes = []
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
    # Nobody watches over it.
    with pytest.MonkeyPatch.context() as patch:
      patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
      started = process.start(self._assignment, name)
    self._started.append(started)
    self.wait_until(lambda: self.node(name)["pid"])
    self._processes.append(psutil.Process(self.node(name)["pid"]))
    return self._processes[-1]

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
    return checkpointing.Checkpointer(self.run.folder / "checkpoints").latest()

  def comes(self, condition, seconds):
    """Whether something happens in so many seconds that must not happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
      time.sleep(0.05)
    return condition()

  def wait_until(self, condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
      if time.monotonic() > end:
        raise WaitedInVainError(
          f"{seconds} seconds have passed, but this did not come:\n"
          f"{inspect.getsource(condition)}{self.status()}"
        )
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
    for suspended in self._processes:
      with contextlib.suppress(psutil.NoSuchProcess):
        suspended.resume()
    for started in self._started:
      started.kill()
      started.join()
    if self._actor is not None:
      self._actor.state = "done"
    self._coordinator.join(60)
