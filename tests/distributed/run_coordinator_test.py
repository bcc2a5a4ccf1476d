"""The coordinator's program: real files, real calls."""

import contextlib
import json
import os
import pathlib
import threading
import time

import pytest

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination import run_coordinator
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.coordination.messages import Report
from acme_qsm.experiments import CheckpointingConfig
from acme_qsm.experiments.records import workdir

KEY = b"key"
HOST = "127.0.0.1"


class Running:
  """A coordinator that runs in a thread.

  Attributes:
    client: its client.
    phase: how the run ended, once `wait` has returned.
  """

  def __init__(self, folder):
    config = run_coordinator.CoordinatorConfig(
      num_actors=1,
      max_actor_steps=10,
      evaluates=False,
      key=KEY,
      host=HOST,
      checkpointing=CheckpointingConfig(directory=str(folder), add_uid=False),
      description=workdir.Description({"task": "point"}),
    )
    self._file = folder / run_coordinator.STATUS_FILE
    self.phase = None
    started, address = threading.Event(), []

    def run():
      self.phase = run_coordinator.run_coordinator(
        config,
        on_start=lambda told: (address.append(told), started.set()),
      )

    self._thread = threading.Thread(target=run)
    self._thread.start()
    assert started.wait(30)
    self.client = rpc.Client(address[0], KEY)

  def wait_for_file(self, condition):
    """Waits until what is written fulfils a condition; returns it."""
    end = time.monotonic() + 30
    while True:
      try:
        status = json.loads(self._file.read_text())
        if condition(status):
          return status
      except FileNotFoundError:
        pass
      assert time.monotonic() < end
      time.sleep(0.005)

  def wait(self):
    self._thread.join(30)
    assert not self._thread.is_alive()


@pytest.fixture
def running(tmp_path, monkeypatch):
  monkeypatch.setattr(run_coordinator, "_STATUS_SECONDS", 0.005)
  monkeypatch.setattr(run_coordinator, "_END_SECONDS", 0.1)
  monkeypatch.setattr(run_coordinator, "_LEAST_END_SECONDS", 0.1)
  started = Running(tmp_path)
  yield started
  with contextlib.suppress(ConnectionError):
    started.client.call("fail", "the test is over")
  started.wait()


@pytest.fixture
def synced(monkeypatch):
  """The names of the files that were waited for until they are on the disk."""
  names, fsync = [], os.fsync

  def watched(descriptor):
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    names.append(pathlib.Path(path).name)
    fsync(descriptor)

  monkeypatch.setattr(os, "fsync", watched)
  return names


def test_the_status_is_not_waited_for_until_the_run_is_over(synced, running):
  for steps in range(1, 6):
    running.client.call(
      "report", Report("actor_0", "1", "acting", totals={"actor_steps": steps})
    )
    running.wait_for_file(lambda s, n=steps: s["counts"] == {"actor_steps": n})
  assert not any(run_coordinator.STATUS_FILE in name for name in synced)
  running.client.call("fail", "enough")
  running.wait_for_file(lambda status: status["phase"] == "failed")
  running.wait()
  assert running.phase is Phase.FAILED
  assert any(run_coordinator.STATUS_FILE in name for name in synced)


def test_what_json_does_not_know_ends_no_run(running):
  running.client.call(
    "report", Report("learner", "1", "learning", metrics={"loss": 1j})
  )
  status = running.wait_for_file(lambda s: s["nodes"]["learner"]["metrics"])
  assert status["nodes"]["learner"]["metrics"] == {"loss": "1j"}
  assert running.client.call("status")["phase"] == "acting"
