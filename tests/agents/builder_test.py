"""The builder's parts, put together as Acme's experiments do it."""

import acme_qsm.acme_compat  # isort: skip

import contextlib
import dataclasses
import inspect
import itertools
import pickle
import sys
import threading
import time

import dm_env
import jax
import numpy as np
import pytest
import reverb
import tensorflow as tf
from acme import specs
from acme import wrappers
from acme.agents.jax import builders
from acme.utils import counting

import acme_qsm
from acme_qsm import environments
from acme_qsm import methods
from acme_qsm.agents.builder import QSMBuilder
from acme_qsm.replay import reverb_tables
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.items import draw_of_items

pytestmark = pytest.mark.acme

# What waiting for anything may take, in seconds: far more than it does.
DEADLINE = 120.0

# The arguments of the builder's methods in later versions of Acme.
SIGNATURES = {
  "make_replay_tables": ["environment_spec", "policy"],
  "make_dataset_iterator": ["replay_client"],
  "make_adder": ["replay_client", "environment_spec", "policy"],
  "make_actor": [
    "random_key",
    "policy",
    "environment_spec",
    "variable_source",
    "adder",
  ],
  "make_learner": [
    "random_key",
    "networks",
    "dataset",
    "logger_fn",
    "environment_spec",
    "replay_client",
    "counter",
  ],
  "make_policy": ["networks", "environment_spec", "evaluation"],
}


@pytest.fixture(scope="module")
def make_environment():
  """Makes a real task, whose episodes are cut after 25 steps."""

  def make(seed=0):
    return wrappers.StepLimitWrapper(
      environments.make("reacher:easy", seed), step_limit=25
    )

  return make


@pytest.fixture(scope="module")
def spec(make_environment):
  return specs.make_environment_spec(make_environment())


@pytest.fixture(scope="module")
def builder(make_config):
  return QSMBuilder(make_config())


@pytest.fixture(scope="module")
def networks(spec, builder):
  return acme_qsm.make_networks(spec, builder.config)


def make_random_dataset(builder, spec):
  """Samples of random transitions, without end."""
  rng = np.random.default_rng(0)
  size = TransitionCodec(spec).size
  while True:
    data = rng.uniform(-1, 1, (builder.config.batch_size, size))
    yield reverb.ReplaySample(info=(), data=data.astype(np.float32))


@pytest.fixture
def learner(builder, networks, spec):
  return builder.make_learner(
    jax.random.PRNGKey(0),
    networks,
    make_random_dataset(builder, spec),
    environment_spec=spec,
  )


def run_episode(environment, actor):
  """Runs an episode; returns the number of steps."""
  timestep = environment.reset()
  actor.observe_first(timestep)
  for length in itertools.count(1):
    action = actor.select_action(timestep.observation)
    timestep = environment.step(action)
    actor.observe(action, timestep)
    if timestep.last():
      return length


def draw_actions(actor, observation, count):
  """Actions [count, A] at one observation."""
  return np.stack([actor.select_action(observation) for _ in range(count)])


def get_uniform_distance(values):
  """Kolmogorov and Smirnov's distance from uniform in [-1, 1], times sqrt(n).

  It is above 1.95 with probability 0.001 where the values are uniform.
  """
  values = np.sort(np.ravel(values))
  n = len(values)
  cdf = (values + 1.0) / 2.0
  above = np.max(np.arange(1, n + 1) / n - cdf)
  below = np.max(cdf - np.arange(n) / n)
  return np.sqrt(n) * max(above, below)


@pytest.mark.parametrize("method", SIGNATURES)
def test_arguments_are_those_of_later_acme(method):
  parameters = inspect.signature(getattr(QSMBuilder, method)).parameters
  assert list(parameters)[1:] == SIGNATURES[method]
  for parameter in parameters.values():
    assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_arguments_that_later_acme_may_leave_out_are_optional():
  def is_optional(method, name):
    parameters = inspect.signature(getattr(QSMBuilder, method)).parameters
    return parameters[name].default is not inspect.Parameter.empty

  assert is_optional("make_actor", "variable_source")
  assert is_optional("make_actor", "adder")
  assert is_optional("make_learner", "replay_client")
  assert is_optional("make_learner", "counter")
  parameters = inspect.signature(QSMBuilder.make_policy).parameters
  assert parameters["evaluation"].default is False


def test_the_builder_has_the_methods_of_acmes(builder):
  abstract = builders.ActorLearnerBuilder.__abstractmethods__
  assert len(abstract) == 5
  assert abstract <= set(dir(builder))
  assert acme_qsm.QSMBuilder is QSMBuilder
  assert QSMBuilder().config == acme_qsm.QSMConfig()
  # As it goes to other processes.
  assert pickle.loads(pickle.dumps(builder)).config == builder.config


def test_the_table(builder, spec):
  tables = builder.make_replay_tables(spec, None)
  assert [type(table) for table in tables] == [reverb.Table]
  info = tables[0].info
  config = builder.config
  assert info.sampler_options.uniform
  assert not info.sampler_options.is_deterministic
  assert info.remover_options.fifo
  assert info.max_size == config.max_replay_size
  assert info.max_times_sampled == 0
  # 6 + 2 + 1 + 1 + 6 numbers in a transition.
  assert info.signature == tf.TensorSpec((16,), tf.float32)
  limiter = info.rate_limiter_info
  assert limiter.samples_per_insert == 8.0
  assert limiter.min_size_to_sample == 16
  # Centred, as wide as an insert's samples and four batches.
  assert limiter.min_diff == 16 * 8.0 - 5 * 8
  assert limiter.max_diff == 16 * 8.0 + 5 * 8


def test_a_table_of_items_of_several_transitions(make_config, spec):
  config = make_config(transitions_per_item=5, max_replay_size=101)
  (table,) = QSMBuilder(config).make_replay_tables(spec)
  info = table.info
  # Whole items: 16 and 101 transitions, rounded up.
  assert info.rate_limiter_info.min_size_to_sample == 4
  assert info.max_size == 21
  assert info.signature == tf.TensorSpec((5 * 16,), tf.float32)
  limiter = info.rate_limiter_info
  # Per transition as before.
  assert limiter.samples_per_insert == 5 * 8.0
  # An insert's samples and four batches.
  assert limiter.min_diff == 4 * 5 * 8.0 - 9 * 8.0
  assert limiter.max_diff == 4 * 5 * 8.0 + 9 * 8.0


@pytest.mark.parametrize("transitions_per_item", [1, 3])
def test_every_transition_is_as_likely_as_the_others(
  make_config, spec, serve, transitions_per_item
):
  builder = QSMBuilder(
    make_config(
      transitions_per_item=transitions_per_item,
      batch_size=100,
      min_replay_size=100,
      n_step=1,
    )
  )
  (table,) = builder.make_replay_tables(spec)
  client = serve(
    table.replace(rate_limiter=reverb.rate_limiters.MinSize(1)),
  )
  adder = builder.make_adder(client, spec)
  adder.add_first(wrap_first(spec))
  for i in range(12):
    adder.add(np.full(2, i / 12, np.float32), wrap_next(spec))
  adder.flush()
  dataset = builder.make_dataset_iterator(client)
  drawn = draw_of_items(dataset, TransitionCodec(spec).size, jax.random.key(0))
  batches = np.concatenate([next(drawn).data for _ in range(120)])
  transitions = TransitionCodec(spec).unpack(batches)
  drawn = np.rint(12 * np.asarray(transitions.action)[:, 0])
  # Each count is binomial, 1000 in the mean with a standard deviation of 30.3.
  # Beyond five of them, any of twelve is with a probability of 7e-6.
  np.testing.assert_allclose(
    [np.sum(drawn == i) for i in range(12)], 1000, atol=5 * 30.3
  )


def test_the_limiter_holds_the_ratio(builder, spec, serve):
  (table,) = builder.make_replay_tables(spec)
  client = serve(table)
  adder = builder.make_adder(client, spec)
  timestep = wrap_first(spec)
  adder.add_first(timestep)
  inserts = 0
  while table.can_insert(1):
    # Nothing is sampled before there are min_replay_size transitions.
    assert table.can_sample(1) == (inserts >= 16)
    adder.add(np.zeros(2, np.float32), wrap_next(spec))
    adder.flush()
    inserts += 1
  # 21 * 8 samples is the window's upper end, 168; its lower end is 88.
  assert inserts == 21
  assert table.can_sample(80)
  assert not table.can_sample(81)
  dataset = builder.make_dataset_iterator(client)
  next(dataset)
  # That batch makes room for an insert.
  deadline = time.monotonic() + DEADLINE
  while not table.can_insert(1):
    assert time.monotonic() < deadline


def wrap_first(spec):
  return wrap_next(spec)._replace(
    step_type=dm_env.StepType.FIRST, reward=None, discount=None
  )


def wrap_next(spec):
  return dm_env.transition(
    np.float32(0.0), np.ones(spec.observations.shape, np.float32)
  )


@pytest.mark.parametrize(
  ("observations", "actions", "message"),
  [
    (specs.Array((2,), np.float64), None, "SinglePrecisionWrapper"),
    (specs.Array((2,), np.uint8), None, "observations must be float32"),
    ({"position": specs.Array((2,), np.float32)}, None, "ConcatObservation"),
    (None, specs.DiscreteArray(3), "discrete"),
    (None, specs.Array((1,), np.float32), "unbounded"),
    (
      None,
      specs.BoundedArray((1,), np.float32, -np.inf, np.inf),
      "infinite bounds",
    ),
    (None, specs.BoundedArray((1,), np.float32, -2, 2), "CanonicalSpecWrapper"),
    (None, specs.BoundedArray((1,), np.float64, -1, 1), "SinglePrecision"),
    (None, specs.BoundedArray((), np.float32, -1, 1), "vector"),
    (None, specs.BoundedArray((2, 2), np.float32, -1, 1), "vector"),
  ],
)
def test_specs_that_cannot_be_acted_in(
  builder, make_spec, observations, actions, message
):
  with pytest.raises(ValueError, match=message):
    builder.make_replay_tables(make_spec(observations, actions))


def test_every_field_that_is_the_builders_is_read(
  spec, serve, learner, monkeypatch
):
  # The rest is read by the core: see core/config_test.
  read = set()

  @dataclasses.dataclass(frozen=True, repr=False)
  class Recording(acme_qsm.QSMConfig):
    def __getattribute__(self, name):
      read.add(name)
      return super().__getattribute__(name)

  monkeypatch.setitem(
    methods.METHODS,
    "recording",
    dataclasses.replace(methods.METHODS["qsm"], config=Recording),
  )
  builder = acme_qsm.DiffusionBuilder(Recording(transitions_per_item=2))
  read.clear()
  client = serve(*builder.make_replay_tables(spec))
  builder.make_dataset_iterator(client)
  adder = builder.make_adder(client, spec)
  assert read >= {
    "batch_size",
    "n_step",
    "min_replay_size",
    "max_replay_size",
    "samples_per_insert",
    "samples_per_insert_tolerance",
    "transitions_per_item",
  }
  networks = acme_qsm.make_networks(spec, acme_qsm.QSMConfig())
  read.clear()
  policy = acme_qsm.make_policy(networks, acme_qsm.QSMConfig())
  builder.make_actor(jax.random.PRNGKey(0), policy, spec, learner, adder)
  assert read >= {"variable_update_period"}
  builder.make_learner(
    jax.random.PRNGKey(0), networks, iter(()), environment_spec=spec
  )
  assert read >= {"num_sgd_steps_per_step"}


def test_missing_arguments_are_named(builder, networks, serve, spec):
  policy = builder.make_policy(networks, spec)
  key = jax.random.PRNGKey(0)
  with pytest.raises(ValueError, match="environment_spec"):
    builder.make_adder(serve(*builder.make_replay_tables(spec)))
  with pytest.raises(ValueError, match="environment_spec"):
    builder.make_learner(key, networks, iter(()))
  with pytest.raises(ValueError, match="variable_source"):
    builder.make_actor(key, policy, spec)


@pytest.mark.parametrize("num_sgd_steps", [1, 3])
def test_batches_from_replay(
  make_config, make_environment, serve, spec, learner, num_sgd_steps
):
  builder = QSMBuilder(make_config(num_sgd_steps_per_step=num_sgd_steps))
  client = serve(*without_insert_blocking(builder.make_replay_tables(spec))[0])
  networks = acme_qsm.make_networks(spec, builder.config)
  recorder = Recorder(builder.make_adder(client, spec))
  actor = builder.make_actor(
    jax.random.PRNGKey(0),
    builder.make_policy(networks, spec),
    spec,
    learner,
    recorder,
  )
  assert run_episode(make_environment(), actor) == 25
  dataset = builder.make_dataset_iterator(client)
  batch = next(dataset).data
  assert isinstance(batch, np.ndarray)
  assert batch.shape == (8 * num_sgd_steps, 16)
  assert batch.dtype == np.float32
  transitions = TransitionCodec(spec).unpack(batch)
  # They are of this episode: observation, and the action taken there.
  taken = {
    np.asarray(observation).tobytes(): action.tobytes()
    for observation, action in zip(
      recorder.observations, recorder.actions, strict=False
    )
  }
  for observation, action in zip(
    np.asarray(transitions.observation),
    np.asarray(transitions.action),
    strict=True,
  ):
    assert taken[observation.tobytes()] == action.tobytes()
  # Uniform draws with replacement: not the same eight again.
  assert not np.array_equal(batch, next(dataset).data)


def test_what_is_drawn_of_items_follows_from_the_learner_s_key(
  make_config, spec
):
  builder = QSMBuilder(make_config(transitions_per_item=3))
  networks = acme_qsm.make_networks(spec, builder.config)
  items = np.random.default_rng(0).uniform(
    -1.0, 1.0, (builder.config.batch_size, 3 * TransitionCodec(spec).size)
  )
  sample = reverb.ReplaySample(info=(), data=items.astype(np.float32))

  def train(num_steps):
    learner = builder.make_learner(
      jax.random.PRNGKey(0),
      networks,
      itertools.repeat(sample),
      environment_spec=spec,
    )
    for _ in range(num_steps):
      learner.step()
    return learner.save()

  jax.tree.map(np.testing.assert_array_equal, train(3), train(3))


class Recorder:
  """An adder that remembers what the one behind it is given."""

  def __init__(self, adder):
    self._adder = adder
    self.observations = []
    self.actions = []

  def add_first(self, timestep):
    self.observations.append(timestep.observation)
    self._adder.add_first(timestep)

  def add(self, action, next_timestep, extras=()):
    self.observations.append(next_timestep.observation)
    self.actions.append(action)
    self._adder.add(action, next_timestep, extras)


def test_actors_act_at_random_until_something_is_learnt(
  builder, networks, spec, learner
):
  observation = np.ones(spec.observations.shape, np.float32)
  first = dm_env.restart(observation)
  actor = builder.make_actor(
    jax.random.PRNGKey(1), builder.make_policy(networks, spec), spec, learner
  )
  actor.observe_first(first)
  actions = draw_actions(actor, observation, 1000)
  assert actions.shape == (1000, 2)
  assert actions.dtype == np.float32
  assert np.all(np.abs(actions) <= 1.0)
  assert get_uniform_distance(actions) < 1.95
  # Both actions are drawn, and of their own: the correlation of n pairs has a
  # standard deviation of 1 / sqrt(n).
  assert abs(np.corrcoef(actions.T)[0, 1]) < 4 / np.sqrt(1000)

  learner.step()
  # The actor has not asked yet.
  actions = draw_actions(actor, observation, 1000)
  assert get_uniform_distance(actions) < 1.95
  actor.update(wait=True)
  actions = draw_actions(actor, observation, 1000)
  assert np.all(np.abs(actions) <= 1.0)
  # A fresh denoiser's actions are nearly normal, and those past 1 are clipped.
  assert get_uniform_distance(actions) > 1.95
  assert np.mean(np.abs(actions) == 1.0) > 0.1


def test_actors_take_over_new_parameters(builder, networks, spec, learner):
  observation = np.ones(spec.observations.shape, np.float32)
  policy = builder.make_policy(networks, spec)
  learner.step()
  actors = [
    builder.make_actor(jax.random.PRNGKey(1), policy, spec, learner)
    for _ in range(2)
  ]
  for actor in actors:
    actor.update(wait=True)
    actor.observe_first(dm_env.restart(observation))
  first, second = (draw_actions(actor, observation, 20) for actor in actors)
  np.testing.assert_array_equal(first, second)
  learner.step()
  actors[0].update(wait=True)
  first, second = (draw_actions(actor, observation, 20) for actor in actors)
  assert not np.array_equal(first, second)


def test_evaluators_take_over_new_parameters_at_once(
  make_config, networks, spec, learner
):
  # They ask once per evaluation, and not once per step.
  builder = QSMBuilder(make_config(variable_update_period=20))
  policy = builder.make_policy(networks, spec, evaluation=True)
  observation = np.ones(spec.observations.shape, np.float32)
  actor = builder.make_actor(jax.random.PRNGKey(1), policy, spec, learner)
  actor.update(wait=True)
  actor.observe_first(dm_env.restart(observation))
  before = jax.tree.leaves(actor.params)
  learner.step()
  actor.update(wait=True)
  after = jax.tree.leaves(actor.params)
  assert any(
    not np.array_equal(a, b) for a, b in zip(before, after, strict=True)
  )


def test_evaluation_neither_explores_nor_records(
  builder, make_environment, networks, serve, spec, learner
):
  client = serve(*builder.make_replay_tables(spec))
  policy = builder.make_policy(networks, spec, evaluation=True)
  actor = builder.make_actor(jax.random.PRNGKey(1), policy, spec, learner)
  assert run_episode(make_environment(), actor) == 25
  assert client.server_info()[reverb_tables.TABLE].current_size == 0
  # From the first: what is to be seen is the policy, not random actions.
  observation = np.ones(spec.observations.shape, np.float32)
  actions = draw_actions(actor, observation, 500)
  assert get_uniform_distance(actions) > 1.95
  assert np.all(np.abs(actions) <= 1.0)


def test_actors_write_to_replay(
  builder, make_environment, networks, serve, spec, learner
):
  client = serve(*without_insert_blocking(builder.make_replay_tables(spec))[0])
  adder = builder.make_adder(client, spec)
  policy = builder.make_policy(networks, spec)
  actor = builder.make_actor(
    jax.random.PRNGKey(1), policy, spec, learner, adder
  )
  environment = make_environment()
  for episode in range(1, 4):
    length = run_episode(environment, actor)
    # Each step's, and the shorter ones at the start.
    expected = episode * (length + builder.config.n_step - 1)
    assert client.server_info()[reverb_tables.TABLE].current_size == expected


def without_insert_blocking(tables):
  """As later Acme's local runner changes the tables.

  Returns:
    The new tables, and for each how many samples must be left in it for the
    runner to learn rather than to act.
  """
  changed, sample_sizes = [], []
  for table in tables:
    limiter = table.info.rate_limiter_info
    changed.append(
      table.replace(
        rate_limiter=reverb.rate_limiters.RateLimiter(
          samples_per_insert=limiter.samples_per_insert,
          min_size_to_sample=limiter.min_size_to_sample,
          min_diff=limiter.min_diff,
          max_diff=sys.float_info.max,
        )
      )
    )
    half = (limiter.max_diff - limiter.min_diff) / 2
    sample_sizes.append(max(1, int(half)))
  return changed, sample_sizes


class Prefetcher:
  """Fetches from a dataset in two threads, one element ahead.

  Stands for what later Acme's local runner gives to the learner.
  """

  def __init__(self, dataset):
    self._dataset = dataset
    self._changed = threading.Condition()
    self._elements = []
    self._stopped = False
    self._num_retrieved = 0
    for _ in range(2):
      threading.Thread(target=self._fetch, daemon=True).start()

  def _fetch(self):
    # Once the server has stopped, there is nothing more to fetch.
    with contextlib.suppress(Exception):
      for element in self._dataset:
        with self._changed:
          self._changed.wait_for(lambda: not self._elements or self._stopped)
          if self._stopped:
            return
          self._elements.append(element)
          self._changed.notify_all()

  def __iter__(self):
    return self

  def __next__(self):
    with self._changed:
      if not self._changed.wait_for(lambda: self._elements, DEADLINE):
        raise TimeoutError("The learner waits for ever.")
      self._num_retrieved += 1
      self._changed.notify_all()
      return self._elements.pop()

  def ready(self, timeout):
    """Whether there is an element, after at most so many seconds."""
    with self._changed:
      return bool(self._changed.wait_for(lambda: self._elements, timeout))

  def retrieved_elements(self):
    return self._num_retrieved

  def stop(self):
    with self._changed:
      self._stopped = True
      self._changed.notify_all()


@pytest.mark.parametrize(
  ("agent", "num_sgd_steps"),
  # Each method's own run with Reverb is in launchers/methods_test.
  [("qsm", 3), ("dipo", 1)],
)
def test_acting_and_learning_in_one_thread(
  make_config, make_environment, serve, spec, agent, num_sgd_steps
):
  config = make_config(agent, num_sgd_steps_per_step=num_sgd_steps)
  builder = acme_qsm.DiffusionBuilder(config)
  environment = make_environment()
  networks = acme_qsm.make_networks(spec, config)
  policy = builder.make_policy(
    networks=networks, environment_spec=spec, evaluation=False
  )
  tables = builder.make_replay_tables(spec, policy)
  offset = config.min_replay_size * config.samples_per_insert
  tables, (sample_size,) = without_insert_blocking(tables)
  client = serve(*tables)
  dataset = Prefetcher(builder.make_dataset_iterator(client))
  counter = counting.Counter(prefix="learner", time_delta=0.0)
  learner = builder.make_learner(
    random_key=jax.random.PRNGKey(0),
    networks=networks,
    dataset=dataset,
    logger_fn=lambda label, steps_key=None, instance=0: None,
    environment_spec=spec,
    replay_client=client,
    counter=counter,
  )
  adder = builder.make_adder(client, spec, policy)
  actor = builder.make_actor(
    jax.random.PRNGKey(1), policy, spec, variable_source=learner, adder=adder
  )

  samples_per_step = config.batch_size * num_sgd_steps
  # On the way from replay: in the prefetcher and its threads' hands (3), in
  # the dataset's own buffer and in the making there (3).
  samples_on_the_way = 6 * samples_per_step
  calls = 0
  deadline = time.monotonic() + DEADLINE
  for _ in range(4):
    timestep = environment.reset()
    actor.observe_first(timestep)
    while not timestep.last():
      action = actor.select_action(timestep.observation)
      timestep = environment.step(action)
      actor.observe(action, timestep)
      trained = False
      while True:
        assert time.monotonic() < deadline, "Acting and learning are stuck."
        if dataset.ready(timeout=0.0):
          learner.step()
          calls += 1
          trained = True
          assert dataset.retrieved_elements() == calls
        elif tables[0].can_sample(sample_size):
          dataset.ready(timeout=0.1)
        else:
          break
      if trained:
        actor.update()

      adder.flush()
      limiter = client.server_info()[reverb_tables.TABLE].rate_limiter_info
      inserts = limiter.insert_stats.completed
      samples = limiter.sample_stats.completed
      consumed = calls * samples_per_step
      assert consumed <= samples <= consumed + samples_on_the_way
      if inserts < config.min_replay_size:
        assert samples == 0
      else:
        # The lower end of the limiter's window is its own; that the middle
        # is reached is for the loop to see to.
        difference = inserts * config.samples_per_insert - samples
        assert limiter.min_diff <= difference
        assert difference <= offset + config.samples_per_insert
  dataset.stop()
  assert inserts == 4 * (25 + config.n_step - 1)
  # (108 - 16) * 8 samples are due, less what is on the way.
  due = (inserts - config.min_replay_size) * config.samples_per_insert
  assert calls >= (due - samples_on_the_way) / samples_per_step
  assert counter.get_counts()["learner_steps"] == calls * num_sgd_steps
  assert int(learner.save().steps) == calls * num_sgd_steps
