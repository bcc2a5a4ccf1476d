"""What signals do to a run that wants to choose when it stops."""

import signal

import pytest

from acme_qsm.experiments import interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted(number):
  with interruption.Interruption() as noted:
    assert not noted.requested()
    signal.raise_signal(number)
    assert noted.requested()
    # The same one again, passed on by another process of the group.
    signal.raise_signal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as raised:
      noted.raise_if_requested()
  if number == signal.SIGTERM:
    assert raised.value.code == 143


def test_a_second_signal_has_its_usual_effect(monkeypatch):
  monkeypatch.setattr(interruption, "_SAME_SECONDS", 0.0)
  with interruption.Interruption() as noted:
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    assert noted.requested()
