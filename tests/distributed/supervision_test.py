"""Real processes that die, hang, or outlive the one that watches them."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from acme_qsm.distributed.processes import supervision

# Without the package's other imports: started often, and in no time.
PRELUDE = f"""
import importlib.util, os, pathlib, signal, sys, time
spec = importlib.util.spec_from_file_location(
  "supervision", {supervision.__file__!r}
)
supervision = importlib.util.module_from_spec(spec)
spec.loader.exec_module(supervision)
folder = pathlib.Path(sys.argv[1])
starts = len(list(folder.glob("start_*")))
(folder / f"start_{{starts}}").write_text(str(os.getpid()))
"""


def wait_until(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.02)


class Watch:
  """Supervises a script, in a thread."""

  def __init__(self, folder, script, **kwargs):
    self.deaths = []
    self.over = False
    self.result = None
    self.log = folder / "log"
    self._folder = folder
    command = [sys.executable, "-c", PRELUDE + script, str(folder)]
    kwargs = {"backoff_seconds": 0.0, **kwargs}

    def run():
      self.result = supervision.supervise(
        supervision.starter(command),
        self.log,
        lambda cause, given_up: self.deaths.append((cause, given_up)),
        lambda: self.over,
        **kwargs,
      )

    self.thread = threading.Thread(target=run)
    self.thread.start()

  @property
  def pids(self):
    paths = sorted(self._folder.glob("start_*"))
    return [int(p.read_text()) for p in paths if p.read_text()]


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
  monkeypatch.setattr(supervision, "_POLL_SECONDS", 0.02)


@pytest.fixture
def watch(tmp_path):
  watches = []

  def make(script, **kwargs):
    watches.append(Watch(tmp_path, script, **kwargs))
    return watches[-1]

  yield make
  for one in watches:
    one.over = True
    for pid in one.pids:
      if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)
    one.thread.join(60)
    assert not one.thread.is_alive()


def test_success_is_the_end(watch):
  it = watch("print('hello', flush=True)")
  it.thread.join(30)
  assert it.result is True
  assert it.deaths == []
  assert it.log.read_text() == "hello\n"


def test_a_killed_process_is_started_again(watch):
  it = watch("while True: time.sleep(0.1)", max_failures=10)
  for n in (1, 2):
    wait_until(lambda n=n: len(it.pids) == n)
    os.kill(it.pids[-1], signal.SIGKILL)
  wait_until(lambda: len(it.pids) == 3)
  assert it.deaths == [("killed by SIGKILL", False)] * 2


def test_a_process_that_keeps_failing_is_given_up(watch):
  it = watch("print('no', file=sys.stderr); sys.exit(3)", max_failures=3)
  it.thread.join(30)
  assert it.result is False
  assert it.deaths == [("exit code 3", False)] * 2 + [("exit code 3", True)]
  assert it.log.read_text() == "no\n" * 3


def test_a_process_that_cannot_be_started_is_tried_again(tmp_path):
  deaths, errors = [], [OSError(errno.EAGAIN, "no room"), OSError("nor now")]
  start = supervision.starter([sys.executable, "-c", ""])

  def start_later(*args):
    if errors:
      raise errors.pop(0)
    return start(*args)

  is_open = psutil.Process().num_fds()
  assert supervision.supervise(
    start_later,
    tmp_path / "log",
    lambda *death: deaths.append(death),
    lambda: False,
    backoff_seconds=0.0,
  )
  assert deaths == [
    (f"it could not be started: {why}", False)
    for why in (f"[Errno {errno.EAGAIN}] no room", "nor now")
  ]
  assert psutil.Process().num_fds() == is_open
  # Nor does where its output goes end who watches over it.
  folder = tmp_path / "no such folder"
  assert not supervision.supervise(
    start,
    folder / "log",
    lambda *death: deaths.append(death),
    lambda: False,
    backoff_seconds=0.0,
  )
  assert [given_up for _, given_up in deaths[2:]] == [False, False, True]
  assert psutil.Process().num_fds() == is_open


def test_failures_long_after_the_start_are_not_in_a_row(watch):
  it = watch("sys.exit(starts < 4)", max_failures=2, stable_seconds=0.0)
  it.thread.join(30)
  assert it.result is True
  assert len(it.deaths) == 4


def test_a_process_may_say_that_it_gives_up(watch):
  it = watch("sys.exit(supervision.ExitCode.GIVE_UP)")
  it.thread.join(30)
  assert it.result is False
  assert it.deaths == [("its environment always failed", True)]


@pytest.mark.parametrize(
  ("ending", "cause"),
  [
    ("sys.exit(supervision.ExitCode.EVICTED)", "it was told to end"),
    # Before it could do anything about it.
    ("os.kill(os.getpid(), signal.SIGTERM)", "killed by SIGTERM"),
  ],
)
def test_who_is_told_to_end_is_started_again_however_often(
  watch, ending, cause
):
  it = watch(f"if starts < 4: {ending}", max_failures=2)
  it.thread.join(30)
  assert it.result is True
  assert it.deaths == [(cause, False)] * 4


def test_what_a_process_says_of_its_end_decides_nothing(watch, monkeypatch):
  for code in supervision._CAUSES:
    monkeypatch.setitem(supervision._CAUSES, code, "it ended")
  it = watch(
    "codes = supervision.ExitCode\n"
    "sys.exit(codes.GIVE_UP if starts else codes.HUNG)"
  )
  it.thread.join(30)
  assert it.deaths == [("it ended", False), ("it ended", True)]


def test_a_process_that_gives_no_sign_of_life_is_killed(watch):
  # The first beats once and hangs; the second beats on and succeeds.
  it = watch(
    """
supervision.beat()
if not starts: time.sleep(1000)
for _ in range(10):
  time.sleep(0.1)
  supervision.beat()
""",
    hang_seconds=3.0,
  )
  it.thread.join(30)
  assert it.result is True
  assert it.deaths == [("it gave no sign of life for 3 seconds", False)]
  assert not psutil.pid_exists(it.pids[0])


def test_once_the_run_is_over_failures_do_not_matter(watch):
  it = watch("time.sleep(0.5); sys.exit(1)")
  wait_until(lambda: it.pids)
  it.over = True
  it.thread.join(30)
  assert it.result is True
  assert it.deaths == []
  assert len(it.pids) == 1


def test_a_process_dies_with_who_started_it(tmp_path):
  script = PRELUDE + (
    "supervision.die_with_parent()\n"
    "print('ready', flush=True)\n"
    "time.sleep(1000)"
  )
  parent = subprocess.Popen(
    [
      sys.executable,
      "-c",
      "import subprocess, sys; subprocess.run(sys.argv[1:])",
      sys.executable,
      "-c",
      script,
      str(tmp_path),
    ],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert parent.stdout
  assert parent.stdout.readline() == "ready\n"
  child = psutil.Process(int((tmp_path / "start_0").read_text()))
  parent.kill()
  parent.wait()
  wait_until(
    lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
  )


def test_beating_without_a_supervisor_does_nothing(monkeypatch):
  monkeypatch.delenv("ACME_QSM_HEARTBEAT", raising=False)
  supervision.beat()
