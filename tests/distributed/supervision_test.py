"""Real processes that die, hang, or outlive the one that watches them."""

import json
import signal
import subprocess
import sys

import psutil
import pytest

from acme_qsm.distributed.processes import supervision
from tests.distributed.waiting import wait_until

# Watches over processes that run a script each, as said by name; prints what
# each died of, and how many descriptors are left open.
SUPERVISOR = """
import json, multiprocessing, os, pathlib, signal, sys, time

import psutil
from acme_qsm.distributed.processes import supervision

supervision._KILL_SECONDS = 1.0
supervision._PAUSE_SECONDS = 0.0
folder = pathlib.Path(sys.argv[1])
scripts = json.loads(sys.argv[2])
starts, deaths = dict.fromkeys(scripts, 0), {name: [] for name in scripts}


def start(name):
  starts[name] += 1
  told = {**globals(), "number": starts[name]}
  if scripts[name] == "no room" and starts[name] < 3:
    raise BlockingIOError(11, "no room")
  process = multiprocessing.get_context("fork").Process(
    target=exec, args=(scripts[name].replace("no room", ""), told)
  )
  process.start()
  (folder / name).write_text(str(process.pid))
  return process


def on_death(name, death):
  deaths[name].append((str(death), death.failed))
  return death.final or len(deaths[name]) == 4


is_open = psutil.Process().num_fds()
supervision.supervise(
  start, list(scripts), on_death, (folder / "over").exists,
  lambda name, seconds: (
    name == "hangs" and starts[name] == 1 and (folder / "hung").exists()
  ),
)
print(json.dumps([deaths, psutil.Process().num_fds() - is_open]))
"""


@pytest.fixture
def supervise(tmp_path):
  """Starts a supervisor of scripts; sees to it that nothing is left."""
  started = []

  def start(**scripts):
    started.append(
      subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, tmp_path, json.dumps(scripts)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
      )
    )
    return started[-1]

  yield start
  for process in started:
    if process.poll() is None:
      children = psutil.Process(process.pid).children(recursive=True)
      for each in [process, *children]:
        each.kill()
    process.communicate()


def test_each_process_is_started_again_until_it_succeeds_or_is_given_up(
  supervise,
):
  """Many faults at once, under one supervisor."""
  supervisor = supervise(
    succeeds="print('hello', flush=True)",
    is_killed="if number < 3: os.kill(os.getpid(), signal.SIGKILL)",
    always_fails="sys.exit(3)",
    gives_up="sys.exit(supervision.ExitCode.GIVE_UP)",
    is_told_to_end="""
if number == 1: sys.exit(supervision.ExitCode.EVICTED)
if number == 2: os.kill(os.getpid(), signal.SIGTERM)
""",
    hangs="""
if number == 1:
  (folder / "hung").touch()
  time.sleep(1000)
""",
    cannot_be_started_at_first="no room",
  )
  output, _ = supervisor.communicate(timeout=60)
  hello, result = output.splitlines()
  deaths, num_left_open = json.loads(result)
  assert hello == "hello"
  no_room = "it could not be started: [Errno 11] no room"
  assert deaths == {
    "succeeds": [],
    "is_killed": [["killed by SIGKILL", True]] * 2,
    "always_fails": [["exit code 3", True]] * 4,
    "gives_up": [["its environment always failed", True]],
    # Nor is it a failure where it could do nothing about it yet.
    "is_told_to_end": [
      ["it was told to end", False],
      ["killed by SIGTERM", False],
    ],
    "hangs": [["it gave no sign of life", True]],
    "cannot_be_started_at_first": [[no_room, True]] * 2,
  }
  assert num_left_open == 0


def test_once_the_run_is_over_nothing_is_started_again_or_left(
  supervise, tmp_path
):
  supervisor = supervise(
    fails_late="while not (folder / 'over').exists(): time.sleep(0.01)\n"
    "time.sleep(0.6)\nsys.exit(1)",
    does_not_end="time.sleep(1000)",
  )
  wait_until((tmp_path / "does_not_end").exists)
  (tmp_path / "over").touch()
  output, _ = supervisor.communicate(timeout=60)
  deaths, num_left_open = json.loads(output)
  assert deaths == {"fails_late": [], "does_not_end": []}
  assert num_left_open == 0
  pid = int((tmp_path / "does_not_end").read_text())
  assert not psutil.pid_exists(pid)


def test_a_process_dies_with_its_supervisor(supervise, tmp_path):
  supervisor = supervise(
    child="supervision.die_with_parent(); print('ready', flush=True)\n"
    "time.sleep(1000)",
  )
  assert supervisor.stdout.readline() == "ready\n"
  child = psutil.Process(int((tmp_path / "child").read_text()))
  supervisor.kill()
  wait_until(
    lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
  )


def test_what_a_process_says_of_its_end_decides_nothing():
  codes = supervision.ExitCode
  final = {code for code in codes if supervision.Death(code).final}
  assert final == {codes.GIVE_UP, codes.DISMISSED}
  assert not supervision.Death(-signal.SIGTERM).failed
  assert str(supervision.Death(-99)) == "killed by signal 99"
