"""Environments that step together: real ones, and what memory holds."""

import subprocess
import sys

import numpy as np
import psutil
import pytest

from acme_qsm.experiments import environment_groups
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.replay import memory_limit

MB = 10**6


class Heavy:
  """An environment that takes ten megabytes.

  Attributes:
    closed: how many have been closed.
  """

  closed = 0

  def __init__(self, seed):
    self.seed = seed
    self._data = np.ones(10 * MB // 8)

  def close(self):
    type(self).closed += 1


@pytest.fixture(autouse=True)
def _none_is_closed():
  Heavy.closed = 0


def test_all_are_made_in_the_order_of_their_seeds():
  group = environment_groups.make_one_by_one(Heavy, [5, 3, 4, 9, 7, 1, 2])
  assert [one.seed for one in group.environments] == [5, 3, 4, 9, 7, 1, 2]
  group.close()
  assert Heavy.closed == 7


def test_more_than_memory_holds_are_refused_after_a_few():
  made = []

  def make(seed):
    made.append(seed)
    return Heavy(seed)

  # 100 TB.
  with pytest.raises(ExperimentError, match="Set a smaller num_envs"):
    environment_groups.make_one_by_one(make, range(10**7))
  # Or some more, where other tests' garbage went meanwhile.
  assert len(made) in (5, 9, 17, 33)
  assert Heavy.closed == len(made)


def test_what_is_given_back_meanwhile_hides_nothing_for_long(monkeypatch):
  # What this process is found to have, when the first, the fifth and the ninth
  # are made.
  found = iter([500 * MB, 100 * MB, 900 * MB])
  monkeypatch.setattr(memory_limit, "resident_memory", lambda: next(found))
  monkeypatch.setattr(memory_limit, "available_memory", lambda: 400 * MB)
  message = "91 more of 50.0 MB"
  with pytest.raises(ExperimentError, match=message):
    environment_groups.make_one_by_one(Heavy, range(100))
  assert Heavy.closed == 9


def test_what_each_takes():
  # In a process of its own: what other tests' threads take or give back
  # meanwhile is no part of it.
  script = """
from acme_qsm.experiments import environment_groups
from tests.experiments.environment_groups_test import Heavy
environment_groups.make_one_by_one(Heavy, range(10**7))
"""
  process = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=False
  )
  message = process.stderr.splitlines()[-1]
  each = float(message.split("more of ")[1].split(" MB")[0])
  assert each == pytest.approx(10.0, rel=0.2), message


def test_the_sum():
  environment_groups.require_room(10, 10 * MB, 100 * MB)
  environment_groups.require_room(10**9, MB, None)
  message = "11 more of 10.0 MB = 110 MB; 100 MB are free"
  with pytest.raises(ExperimentError, match=message):
    environment_groups.require_room(11, 10 * MB, 100 * MB)


def test_one_that_cannot_be_made_leaves_none_open():
  def make(seed):
    if seed == 3:
      raise OSError("no more")
    return Heavy(seed)

  with pytest.raises(OSError, match="no more"):
    environment_groups.make_one_by_one(make, range(5))
  assert Heavy.closed == 3


def test_the_memory_that_this_process_has():
  expected = psutil.Process().memory_info().rss
  assert memory_limit.resident_memory() == pytest.approx(expected, rel=0.05)


def test_where_nobody_tells(tmp_path):
  assert memory_limit.resident_memory(tmp_path) == 0
