"""The learner's parameters on their way to actors, over real connections."""

import threading

import jax
import numpy as np
import pytest

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.nodes import variables as variables_lib

KEY = b"key"
HOST = "127.0.0.1"


class Source:
  """Parameters that tell how often they were asked for."""

  def __init__(self):
    self.asked = []
    self.steps = 0

  def get_variables(self, names):
    self.asked.append(tuple(names))
    return [{name: jax.numpy.full(3, self.steps)} for name in names]


@pytest.fixture
def source():
  return Source()


@pytest.fixture
def published(source):
  return variables_lib.PublishedVariables(source, lambda: source.steps)


def test_each_step_and_names_are_encoded_once(source, published):
  first = [published.get(["acting_policy"], None) for _ in range(8)]
  assert source.asked == [("acting_policy",)]
  assert all(encoded is first[0][1] for _, encoded in first)
  published.get(["evaluation_policy"], None)
  published.get(["acting_policy", "critic"], None)
  assert len(source.asked) == 3
  source.steps += 1
  version, encoded = published.get(["acting_policy"], first[0][0])
  assert version.steps == 1
  assert encoded != first[0][1]
  assert len(source.asked) == 4


def test_who_has_the_newest_is_told_so(source, published):
  version, _ = published.get(["policy"], None)
  assert published.get(["policy"], version) == (version, None)
  assert len(source.asked) == 1


class Held(Source):
  """Parameters that are held back."""

  def __init__(self):
    super().__init__()
    self.entered = threading.Semaphore(0)
    self.release = threading.Semaphore(0)

  def get_variables(self, names):
    values = super().get_variables(names)
    self.entered.release()
    assert self.release.acquire(timeout=30)
    return values


def test_all_that_ask_meanwhile_are_answered_together():
  source = Held()
  published = variables_lib.PublishedVariables(source, lambda: source.steps)
  answers = []

  def start(count):
    threads = [
      threading.Thread(
        target=lambda: answers.append(published.get(["held"], None))
      )
      for _ in range(count)
    ]
    for thread in threads:
      thread.start()
    return threads

  first = start(1)
  assert source.entered.acquire(timeout=30)
  # With parameters as new as then.
  source.steps = 1
  rest = start(15)
  source.release.release()
  assert source.entered.acquire(timeout=30)
  for thread in first:
    thread.join(30)
  # Who has the newest is told so meanwhile.
  newest = variables_lib.Version(answers[0][0].learner, 1)
  assert published.get(["held"], newest) == (newest, None)
  source.release.release()
  for thread in rest:
    thread.join(30)
  assert [version.steps for version, _ in answers] == [0] + 15 * [1]
  assert len({id(encoded) for _, encoded in answers}) == 2
  assert len(source.asked) == 2


def test_another_learner_may_be_as_far_with_other_parameters(source, published):
  version, _ = published.get(["policy"], None)
  restarted = variables_lib.PublishedVariables(source, lambda: source.steps)
  assert restarted.get(["policy"], version)[1] is not None


def test_over_a_connection(source, published):
  serving = rpc.Server({"variables": published.get}, KEY, HOST)
  remote = variables_lib.RemoteVariables(
    lambda: rpc.Client(serving.address, KEY)
  )
  first = remote.get_variables(["policy"])
  assert isinstance(first[0]["policy"], np.ndarray)
  # Nothing new: what it has, itself.
  assert remote.get_variables(["policy"]) is first
  source.steps = 7
  (second,) = remote.get_variables(["policy"])
  np.testing.assert_array_equal(second["policy"], [7, 7, 7])
  assert remote.learner_steps == 7
  # Each role has its own version.
  (critic,) = remote.get_variables(["critic"])
  np.testing.assert_array_equal(critic["critic"], [7, 7, 7])
  serving.stop()
  # Without the learner, the last ones.
  (last,) = remote.get_variables(["policy"])
  np.testing.assert_array_equal(last["policy"], [7, 7, 7])
