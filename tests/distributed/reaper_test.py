"""The reaper, with real processes."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from acme_qsm.distributed.processes import reaper
from tests.distributed.waiting import wait_until

# Starts a child that starts a grandchild, both in sessions of their own.
PARENT = """
import subprocess, sys, time
from acme_qsm.distributed.processes import reaper

bystander = subprocess.Popen(["sleep", "600"])
reaper.start("ACME_QSM_TEST")
command = "import subprocess; subprocess.Popen(['sleep', '600']).wait()"
child = subprocess.Popen(
  [sys.executable, "-c", command], start_new_session=True
)
print(bystander.pid, child.pid, flush=True)
time.sleep(600)
"""


def is_running(process):
  try:
    return process.status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_process_has_started_ends_with_it(how):
  parent = subprocess.Popen(
    [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
  )
  bystander, child = map(
    psutil.Process, map(int, parent.stdout.readline().split())
  )
  try:
    wait_until(child.children)
    started = [child, *child.children()]
    os.kill(parent.pid, how)
    parent.wait()
    wait_until(lambda: not any(map(is_running, started)))
    # It was there before.
    assert is_running(bystander)
  finally:
    bystander.kill()


def test_a_process_without_the_mark_is_known_by_its_parent():
  # As one would be that has written over its environment.
  grandchild = "subprocess.Popen(['/bin/sleep', '600'], env={}).wait()"
  child = psutil.Popen(
    [sys.executable, "-c", f"import subprocess; {grandchild}"],
    env={"ACME_QSM_TEST": "known"},
  )
  wait_until(child.children)
  (grandchild,) = child.children()
  try:
    found = reaper.find("ACME_QSM_TEST=known", set())
    assert {process.pid for process in found} == {child.pid, grandchild.pid}
    child.kill()
    child.wait()
    found = reaper.find("ACME_QSM_TEST=known", found)
    assert [process.pid for process in found] == [grandchild.pid]
    assert not reaper.find("ACME_QSM_TEST=known", set())
  finally:
    grandchild.kill()
  wait_until(lambda: not reaper.find("ACME_QSM_TEST=known", found))
