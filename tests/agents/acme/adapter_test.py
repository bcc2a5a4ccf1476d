"""The adapter for the builders of dm-acme 0.4.0."""

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import functools
import inspect
import logging
import threading

import cloudpickle
import dm_env
import numpy as np
import pytest
import reverb
from acme.agents.jax import builders
from acme.agents.jax import sac
from acme.utils import loggers

from acme_qsm.agents.acme.adapter import AcmeBuilder
from acme_qsm.agents.builder import QSMBuilder

pytestmark = pytest.mark.acme

# What waiting for anything may take, in seconds: far more than it does.
DEADLINE = 120.0


class RecordingBuilder(builders.ActorLearnerBuilder):
  """A builder whose methods return what they were called with."""

  def __init__(self, config=None, logger_fn=lambda: None):
    self._config = config
    self._logger_fn = logger_fn

  def make_replay_tables(self, environment_spec):
    return [
      reverb.Table.queue(f"observations_{environment_spec.observations}", 1)
    ]

  def make_dataset_iterator(self, replay_client):
    return iter(["dataset of", replay_client])

  def make_adder(self, replay_client):
    return "adder to", replay_client

  def make_actor(
    self, random_key, policy_network, adder=None, variable_source=None
  ):
    return random_key, policy_network, adder, variable_source

  def make_learner(
    self, random_key, networks, dataset, replay_client=None, counter=None
  ):
    logger = self._logger_fn()
    return random_key, networks, dataset, replay_client, counter, logger


def make_policy(networks, environment_spec, evaluation):
  return networks, environment_spec, evaluation


@pytest.fixture
def builder():
  return AcmeBuilder(RecordingBuilder, make_policy)


def make_sac_builder(**fields):
  return AcmeBuilder(
    functools.partial(sac.SACBuilder, sac.SACConfig(**fields)),
    lambda networks, environment_spec, evaluation: sac.apply_policy_and_sample(
      networks, eval_mode=evaluation
    ),
  )


@pytest.mark.parametrize(
  "method",
  [
    "make_replay_tables",
    "make_dataset_iterator",
    "make_adder",
    "make_actor",
    "make_learner",
    "make_policy",
  ],
)
def test_arguments_are_those_of_later_acme(method):
  # Which tests of QSMBuilder spell out.
  expected = inspect.signature(getattr(QSMBuilder, method)).parameters
  found = inspect.signature(getattr(AcmeBuilder, method)).parameters
  assert list(found) == list(expected)


def test_each_method_hands_on_its_arguments(builder, make_spec):
  spec = make_spec()
  (table,) = builder.make_replay_tables(spec, "policy")
  assert table.name == f"observations_{spec.observations}"
  assert list(builder.make_dataset_iterator("client")) == [
    "dataset of",
    "client",
  ]
  assert builder.make_adder("client", spec, "policy") == ("adder to", "client")
  actor = builder.make_actor("key", "policy", spec, "source", "adder")
  assert actor == ("key", "policy", "adder", "source")
  # An evaluator's.
  actor = builder.make_actor("key", "policy", spec, "source")
  assert actor == ("key", "policy", None, "source")
  learner = builder.make_learner(
    "key", "networks", "data", lambda *args: args, spec, "client", "counter"
  )
  assert learner[:5] == ("key", "networks", "data", "client", "counter")
  assert builder.make_policy("networks", spec) == ("networks", spec, False)
  policy = builder.make_policy("networks", spec, evaluation=True)
  assert policy == ("networks", spec, True)


def test_the_learner_gets_the_runs_logger(builder, make_spec, caplog):
  made = []

  def make_logger(label, steps_key=None, instance=0):
    made.append((label, steps_key, instance))
    return loggers.InMemoryLogger()

  first, second = (
    builder.make_learner("key", "networks", "data", make_logger, make_spec())[5]
    for _ in range(2)
  )
  assert made == [("learner", "learner_steps", 0)] * 2
  assert isinstance(first, loggers.InMemoryLogger)
  assert isinstance(second, loggers.InMemoryLogger)
  assert first is not second
  # Given None, Acme would make a logger of its own, in the home directory.
  *_, logger = builder.make_learner("key", "networks", "data")
  assert isinstance(logger, loggers.NoOpLogger)
  assert not caplog.records


def test_a_logger_that_gets_lost_is_reported(caplog):
  builder = AcmeBuilder(lambda logger_fn: RecordingBuilder(), make_policy)
  with caplog.at_level(logging.WARNING):
    builder.make_learner("key", "networks", "data", lambda *args: args)
  assert "RecordingBuilder did not ask for the run's logger" in caplog.text


def test_goes_to_other_processes(make_spec):
  original = AcmeBuilder(
    functools.partial(RecordingBuilder, {"size": 3}),
    lambda networks, spec, evaluation: (networks, evaluation),
  )
  copy = cloudpickle.loads(cloudpickle.dumps(original))
  assert copy.config == original.config
  assert copy.make_policy("networks", make_spec(), True) == ("networks", True)
  # The logger is that of the copy's run, not the original's.
  learners = [
    builder.make_learner("key", "networks", "data", lambda *_, n=name: n)
    for name, builder in {"original": original, "copy": copy}.items()
  ]
  assert [learner[5] for learner in learners] == ["original", "copy"]


def test_config_tells_agents_apart():
  config = make_sac_builder(batch_size=7).config
  assert config["builder"] == "SACBuilder"
  assert config["config"] == sac.SACConfig(batch_size=7)
  assert config != make_sac_builder(batch_size=8).config


@pytest.mark.parametrize(
  ("make_builder", "make_policy", "message"),
  [
    (
      RecordingBuilder(),
      make_policy,
      "make_builder must be a function.*partial",
    ),
    (
      RecordingBuilder,
      "policy",
      "make_policy must be a function, got 'policy'",
    ),
    (sac.SACBuilder, make_policy, "argument: 'config'"),
    (lambda: None, make_policy, "logger_fn"),
    (lambda logger_fn: None, make_policy, "it made a NoneType"),
    (
      lambda logger_fn: QSMBuilder(),
      make_policy,
      "QSMBuilder makes policies: it needs no AcmeBuilder",
    ),
  ],
)
def test_wrong_arguments(make_builder, make_policy, message):
  with pytest.raises(TypeError, match=message):
    AcmeBuilder(make_builder, make_policy)


@pytest.mark.parametrize(
  ("fields", "width"),
  [
    # As wide as its configuration says: 0.1 * 10_000 * 256.
    ({}, 256_000),
    # Twelve batches and an insert's samples.
    ({"min_replay_size": 10}, 12 * 256 + 256),
    ({"min_replay_size": 10, "num_sgd_steps_per_step": 3}, 12 * 768 + 256),
  ],
)
def test_the_limiters_width(make_spec, fields, width):
  (table,) = make_sac_builder(**fields).make_replay_tables(make_spec())
  limiter = table.info.rate_limiter_info
  size = fields.get("min_replay_size", 10_000)
  assert limiter.samples_per_insert == 256
  assert limiter.min_size_to_sample == size
  assert limiter.min_diff == size * 256 - width
  assert limiter.max_diff == size * 256 + width


@pytest.mark.parametrize(
  "limit",
  [
    lambda table: table.replace(rate_limiter=reverb.rate_limiters.MinSize(1)),
    lambda table: reverb.Table.queue(table.name, 20),
  ],
)
def test_limiters_that_hold_no_ratio_stay(make_spec, limit):
  class Builder(sac.SACBuilder):
    def make_replay_tables(self, environment_spec):
      (table,) = super().make_replay_tables(environment_spec)
      return [limit(table)]

  config = sac.SACConfig(min_replay_size=10)
  tables = [
    builder.make_replay_tables(make_spec())[0].info
    for builder in (
      Builder(config),
      AcmeBuilder(functools.partial(Builder, config), make_policy),
    )
  ]
  expected, found = (
    (info.max_times_sampled, str(info.rate_limiter_info)) for info in tables
  )
  assert found == expected


def test_batches_come_whenever_they_are_due(make_spec):
  # The window is as narrow as Reverb allows, two inserts' samples: less than
  # one batch, let alone what the workers of Acme's dataset hold.
  builder = make_sac_builder(
    batch_size=32,
    min_replay_size=20,
    samples_per_insert=8,
    samples_per_insert_tolerance_rate=0.1,
  )
  (table,) = builder.make_replay_tables(make_spec())
  server = reverb.Server([table])
  client = reverb.Client(f"localhost:{server.port}")
  dataset = builder.make_dataset_iterator(client)
  adder = builder.make_adder(client)
  num_batches = 0

  def act_and_learn():
    nonlocal num_batches
    observation = np.zeros(2, np.float32)
    for _ in range(20):
      adder.add_first(dm_env.restart(observation))
      for _ in range(4):
        adder.add(
          np.zeros(1, np.float32),
          dm_env.transition(np.float32(1.0), observation, np.float32(1.0)),
        )
      adder.add(
        np.zeros(1, np.float32),
        dm_env.truncation(np.float32(1.0), observation, np.float32(1.0)),
      )
      # The episode's end waited until all were inserted.
      inserts = table.info.rate_limiter_info.insert_stats.completed
      while 32 * num_batches < 8 * (inserts - 19):
        assert next(dataset).data.observation.shape == (32, 2)
        num_batches += 1

  thread = threading.Thread(target=act_and_learn, daemon=True)
  thread.start()
  thread.join(DEADLINE)
  # Before the dataset goes, which else waits for what its workers asked for.
  server.stop()
  # 8 * (100 - 19) samples.
  assert num_batches == 21, "Acting and learning are stuck."
