"""What signals do to a run that wants to choose when it stops."""

import signal
import subprocess
import sys

import pytest

from acme_qsm.experiments.surroundings import interruption


@pytest.mark.parametrize(
  ("number", "code"),
  [
    (signal.SIGINT, None),
    (signal.SIGTERM, 143),
    (signal.SIGHUP, 129),
    (signal.SIGUSR1, 138),
  ],
)
def test_a_signal_is_noted(number, code):
  before = signal.getsignal(number)
  with interruption.Interruption() as noted:
    assert not noted.requested()
    signal.raise_signal(number)
    assert noted.requested()
    # The same one again, passed on by another process of the group.
    signal.raise_signal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
      noted.raise_if_requested()
  if code is not None:
    assert raised.value.code == code
  assert noted.received == number
  assert signal.getsignal(number) == before


def test_what_nohup_ignores_stays_ignored():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with interruption.Interruption() as noted:
      signal.raise_signal(signal.SIGHUP)
      assert not noted.requested()
      signal.raise_signal(signal.SIGUSR1)
      assert noted.requested()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


STARTED = "import signal; print(*map(int, signal.pthread_sigmask(0, ())))"


def test_what_comes_while_processes_are_started_is_not_lost():
  with interruption.deferred():
    signal.raise_signal(signal.SIGHUP)
    # Nor does what is started get it.
    started = subprocess.run(
      [sys.executable, "-c", STARTED], capture_output=True, text=True
    )
    noted = interruption.Interruption()
    noted.__enter__()
  try:
    assert noted.received == signal.SIGHUP
  finally:
    noted.__exit__()
  assert {signal.SIGHUP, signal.SIGUSR1} <= set(
    map(int, started.stdout.split())
  )


def test_a_second_signal_has_its_usual_effect(monkeypatch):
  monkeypatch.setattr(interruption, "_SAME_SECONDS", 0.0)
  with interruption.Interruption() as noted:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    assert noted.requested()
