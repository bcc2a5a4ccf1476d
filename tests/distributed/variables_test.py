"""The learner's parameters on their way to actors, over real connections."""

import threading

import jax
import numpy as np
import pytest

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes import variables as variables_lib
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.experiments.config import EvaluationSchedule

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
  """Parameters of which some are held back."""

  def __init__(self):
    super().__init__()
    self.entered = threading.Semaphore(0)
    self.release = threading.Semaphore(0)

  def get_variables(self, names):
    values = super().get_variables(names)
    if "held" in names:
      self.entered.release()
      assert self.release.acquire(timeout=30)
    return values


def test_who_need_not_wait_for_an_encoding_does_not():
  source = Held()
  published = variables_lib.PublishedVariables(source, lambda: source.steps)
  answers = []

  def ask(have=None):
    answers.append(published.get(["held"], have))

  def start(count):
    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
      thread.start()
    return threads

  first = start(1)
  assert source.entered.acquire(timeout=30)
  # Other parameters, and who has the newest.
  version, encoded = published.get(["other"], None)
  assert encoded is not None
  assert published.get(["held"], version) == (version, None)
  source.steps = 1
  # Those who ask meanwhile are answered together, by parameters as new as then.
  rest = start(15)
  source.release.release()
  assert source.entered.acquire(timeout=30)
  for thread in first:
    thread.join(30)
  assert [version.steps for version, _ in answers] == [0]
  source.release.release()
  for thread in rest:
    thread.join(30)
  assert [version.steps for version, _ in answers] == [0] + 15 * [1]
  assert len({id(encoded) for _, encoded in answers}) == 2
  assert source.asked.count(("held",)) == 2


def test_another_learner_may_be_as_far_with_other_parameters(source, published):
  version, _ = published.get(["policy"], None)
  restarted = variables_lib.PublishedVariables(source, lambda: source.steps)
  assert restarted.get(["policy"], version)[1] is not None


def test_over_a_connection(source, published, make_experiment):
  coordinator = Coordinator(1, 100)
  names = ("announce", "report")
  coordinating = rpc.Server(
    {name: getattr(coordinator, name) for name in names}, KEY, HOST
  )
  serving = rpc.Server({"variables": published.get}, KEY, HOST)
  coordinator.announce("learner", f"{HOST}:{serving.port}")
  link = Link(
    "actor_0",
    rpc.Client(f"{HOST}:{coordinating.port}", KEY),
    end_process=None,
  )
  run = Run(
    experiment=make_experiment(),
    environment_spec=None,
    schedule=EvaluationSchedule(1, 0, 1),
    key=KEY,
    host=HOST,
    path=None,
    run_id="",
    hang_seconds=1.0,
  )
  remote = variables_lib.RemoteVariables(run, link)
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
  link.close()
  serving.stop()
  coordinating.stop()
