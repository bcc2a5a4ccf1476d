"""Waiting for what other threads and processes do."""

import time


def wait_until(condition, seconds=60):
  """Waits until a condition holds; fails where it does not in time."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "waited in vain"
    time.sleep(0.01)
