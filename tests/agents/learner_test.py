"""The Acme learner against the pure training step that it wraps."""

import acme_qsm.acme_compat  # isort: skip

import re
import threading

import haiku as hk
import jax
import numpy as np
import pytest
import reverb
from acme import core as acme_core
from acme.utils import counting
from acme.utils import loggers

import acme_qsm
from acme_qsm import types
from acme_qsm.agents import learner as learning
from acme_qsm.replay.codec import TransitionCodec

pytestmark = pytest.mark.acme

BATCH_SIZE = 8


@pytest.fixture(scope="module")
def codec(make_spec):
  return TransitionCodec(make_spec())


@pytest.fixture(scope="module")
def learner_core(make_spec, make_config):
  config = make_config(batch_size=BATCH_SIZE)
  networks = acme_qsm.make_networks(make_spec(), config)
  return acme_qsm.make_learner_core(networks, config)


@pytest.fixture(scope="module")
def make_data(codec):
  """Makes a sample's data, packed random transitions."""

  def make(seed, size=BATCH_SIZE, reward=None):
    rng = np.random.default_rng(seed)
    rows = [
      codec.pack(
        types.Transition(
          observation=rng.normal(size=2),
          action=rng.uniform(-1, 1, size=1),
          reward=rng.normal(),
          discount=float(rng.integers(2)),
          next_observation=rng.normal(size=2),
        )
      )
      for _ in range(size)
    ]
    if reward is not None:
      rows[size // 2][3] = reward
    return np.stack(rows)

  return make


@pytest.fixture
def make_learner(learner_core, codec):
  def make(dataset, seed=0, num_sgd_steps=1, **kwargs):
    return learning.DiffusionLearner(
      learner_core,
      jax.random.PRNGKey(seed),
      (reverb.ReplaySample(info=(), data=data) for data in dataset),
      codec,
      num_sgd_steps_per_step=num_sgd_steps,
      **kwargs,
    )

  return make


class RecordingLogger(loggers.Logger):
  """Keeps what is written."""

  def __init__(self):
    self.rows = []

  def write(self, data):
    self.rows.append(jax.tree.map(float, data))

  def close(self):
    pass


def copy(tree):
  return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def assert_bit_equal(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(np.testing.assert_array_equal, first, second)


def differ(first, second):
  """Whether any leaf differs."""
  return any(
    np.any(np.asarray(x) != np.asarray(y))
    for x, y in zip(
      jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    )
  )


def test_three_sgd_steps_at_once_are_three_steps(
  learner_core, codec, make_data, make_learner
):
  dataset = [make_data(seed, 3 * BATCH_SIZE) for seed in range(2)]
  counter = counting.Counter(prefix="learner", time_delta=0.0)
  logger = RecordingLogger()
  learner = make_learner(
    dataset, num_sgd_steps=3, counter=counter, logger=logger
  )
  abstract = acme_core.Learner.__abstractmethods__
  assert abstract <= set(dir(learner))

  state = jax.jit(learner_core.init)(jax.random.PRNGKey(0))
  assert_bit_equal(learner.save(), copy(state))
  step = jax.jit(learner_core.step)
  for call, data in enumerate(dataset):
    learner.step()
    metrics = []
    for batch in np.split(data, 3):
      state, metric = step(state, codec.unpack(batch))
      metrics.append(jax.device_get(metric))
    saved = learner.save()
    assert int(saved.steps) == 3 * (call + 1)
    np.testing.assert_array_equal(saved.key, state.key)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
      saved,
      copy(state),
    )
    row = logger.rows[-1]
    assert row["learner_steps"] == 3 * (call + 1)
    for name in metrics[0]:
      mean = np.mean([metric[name] for metric in metrics])
      np.testing.assert_allclose(row[name], mean, rtol=1e-4, err_msg=name)
  assert counter.get_counts()["learner_steps"] == 6
  assert len(logger.rows) == 2


def test_a_step_takes_one_element(make_data, make_learner):
  dataset = iter([make_data(seed) for seed in range(5)])
  learner = make_learner(dataset)
  learner.step()
  learner.step()
  assert len(list(dataset)) == 3


def test_it_runs_and_counts_by_itself(make_data, make_learner):
  logger = RecordingLogger()
  learner = make_learner(
    [make_data(seed, 2 * BATCH_SIZE) for seed in range(3)],
    num_sgd_steps=2,
    logger=logger,
  )
  learner.run(2)
  assert [row["learner_steps"] for row in logger.rows] == [2, 4]
  assert 0.0 < logger.rows[-1]["learner_walltime"] < 600.0
  # Until there is nothing more to learn from.
  with pytest.raises(StopIteration):
    learner.run()
  assert int(learner.save().steps) == 6


def test_a_restored_learner_goes_on_bit_equally(make_data, make_learner):
  learner = make_learner([make_data(seed) for seed in range(5)])
  for _ in range(2):
    learner.step()
  saved = learner.save()
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(saved))
  for _ in range(3):
    learner.step()

  other = make_learner([make_data(seed) for seed in range(2, 5)], seed=1)
  assert differ(other.save(), saved)
  other.restore(saved)
  assert_bit_equal(other.save(), saved)
  for _ in range(3):
    other.step()
  assert_bit_equal(other.save(), learner.save())
  assert int(other.save().steps) == 5


def test_a_learner_in_the_middle_of_training_can_be_restored(
  make_data, make_learner
):
  learner = make_learner([make_data(0), make_data(1), make_data(0)])
  start = learner.save()
  learner.step()
  after_first = learner.save()
  learner.step()
  learner.restore(start)
  assert_bit_equal(learner.save(), start)
  learner.step()
  assert_bit_equal(learner.save(), after_first)


def test_later_steps_change_nothing_that_was_given_out(make_data, make_learner):
  learner = make_learner([make_data(seed) for seed in range(4)])
  learner.step()
  saved, variables = learner.save(), learner.get_variables(["policy", "critic"])
  saved_copy, variables_copy = copy(saved), copy(variables)
  other = make_learner([make_data(9)])
  other.restore(saved)
  for _ in range(3):
    learner.step()
  other.step()
  assert_bit_equal(saved, saved_copy)
  assert_bit_equal(copy(variables), variables_copy)
  assert differ(learner.get_variables(["policy", "critic"]), variables)


def test_variables_are_asked_for_by_name(learner_core, make_data, make_learner):
  learner = make_learner([make_data(0)])
  learner.step()
  state = learner.save()
  critic, policy = learner.get_variables(["critic", "policy"])
  assert isinstance(policy, acme_qsm.PolicyParams)
  assert_bit_equal(copy(policy), learner_core.policy_params(state))
  assert_bit_equal(copy(critic), state.critic_params)
  assert learner.get_variables([]) == []
  with pytest.raises(ValueError, match=r"\['actor'\].*'critic', .*'policy'"):
    learner.get_variables(["policy", "actor"])


def test_variables_can_be_fetched_while_steps_are_made(make_data, make_learner):
  num_steps = 100
  data = make_data(0)
  learner = make_learner([data] * (num_steps + 1))
  learner.step()
  learner.get_variables(["policy"])
  fetched, errors = [], []
  done = threading.Event()

  def fetch():
    try:
      while not done.is_set():
        (policy,) = learner.get_variables(["policy"])
        # Bounded memory: keep some, which must stay valid.
        if len(fetched) < 200:
          fetched.append(policy)
        learner.save()
    except Exception as error:
      errors.append(error)

  thread = threading.Thread(target=fetch, daemon=True)
  thread.start()
  for _ in range(num_steps):
    learner.step()
  done.set()
  thread.join(timeout=60)
  assert not thread.is_alive()
  assert not errors
  assert fetched
  steps = [int(policy.steps) for policy in fetched]
  assert steps == sorted(steps)
  assert 1 <= steps[0] <= steps[-1] <= num_steps + 1
  for policy in fetched:
    for leaf in jax.tree.leaves(policy):
      assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("num_sgd_steps", [1, 3])
@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_a_reward_that_is_not_finite_stops_the_learner(
  make_data, make_learner, num_sgd_steps, reward
):
  size = num_sgd_steps * BATCH_SIZE
  learner = make_learner(
    [
      make_data(0, size),
      make_data(1, size, reward=reward),
      make_data(2, size),
      make_data(3, size),
      make_data(4, size),
    ],
    num_sgd_steps=num_sgd_steps,
  )
  learner.step()
  good = learner.save()
  learner.step()
  steps = 2 * num_sgd_steps
  metric = r"\w+ is (nan|-?inf)"
  message = rf"^{metric}(, {metric})* after learner step {steps}\."
  with pytest.raises(types.NonFiniteError, match=message) as error:
    learner.save()
  # The first thing it says is the name of what is logged.
  assert str(error.value).split()[0] in (
    "critic_loss",
    "q_value",
    "denoiser_loss",
    "action_gradient_size",
  )
  # For good, not once.
  for _ in range(2):
    with pytest.raises(types.NonFiniteError, match=message):
      learner.step()

  learner.restore(good)
  assert_bit_equal(learner.save(), good)
  learner.step()
  assert int(learner.save().steps) == steps


@pytest.mark.parametrize(
  ("fields", "steps", "names"),
  [
    # exp(Q / temperature) of its one sample is more than a float can be.
    (
      {
        "weights": "exponential",
        "num_reverse_samples": 1,
        "temperature_update": "constant",
        "boltzmann_temperature": 0.01,
      },
      1,
      ["denoiser_loss", "largest_weight"],
    ),
    # Weights are too uneven, so that one update makes the temperature that.
    (
      {
        "boltzmann_temperature": 0.001,
        "temperature_learning_rate": 1e4,
        "policy_update_period": 1,
        "target_kl": 1.0,
      },
      2,
      ["boltzmann_temperature"],
    ),
  ],
)
def test_all_that_is_not_finite_is_named(
  make_spec, codec, make_data, fields, steps, names
):
  config = acme_qsm.SDACConfig(
    policy_hidden_sizes=(16,),
    num_denoising_steps=2,
    min_replay_size=BATCH_SIZE,
    batch_size=BATCH_SIZE,
    **fields,
  )
  networks = acme_qsm.make_networks(
    make_spec(),
    config,
    critic=lambda observation, action: hk.Linear(
      1, b_init=hk.initializers.Constant(10.0)
    )(action)[..., 0],
  )
  learner = learning.DiffusionLearner(
    acme_qsm.make_learner_core(networks, config),
    jax.random.PRNGKey(0),
    iter([reverb.ReplaySample(info=(), data=make_data(0))] * steps),
    codec,
  )
  for _ in range(steps):
    learner.step()
  with pytest.raises(
    types.NonFiniteError, match=rf" after learner step {steps}\.$"
  ) as raised:
    learner.save()
  named = re.findall(r"(\w+) is (?:nan|-?inf)", str(raised.value))
  assert set(names) <= set(named), named


@pytest.mark.parametrize("num_sgd_steps", [1, 2])
def test_diagnostics_are_made_now_and_then_and_in_every_row(
  learner_core, codec, make_data, make_learner, num_sgd_steps
):
  dataset = [make_data(seed, num_sgd_steps * BATCH_SIZE) for seed in range(5)]
  logger = RecordingLogger()
  learner = make_learner(
    dataset,
    num_sgd_steps=num_sgd_steps,
    logger=logger,
    diagnostics_period=3,
  )
  diagnose = jax.jit(learner_core.diagnostics)
  expected = []
  for call, data in enumerate(dataset):
    if call % 3 == 0:
      # Of the first batch, by the parameters before the step.
      batch = codec.unpack(data[:BATCH_SIZE])
      latest = float(diagnose(learner.save(), batch)["action_spread"])
    expected.append(latest)
    learner.step()
  found = [row["action_spread"] for row in logger.rows]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert len(set(found)) == 2


def test_diagnostics_are_those_of_the_state_that_was_restored(
  make_data, make_learner
):
  logger = RecordingLogger()
  learner = make_learner([make_data(0)] * 3, logger=logger)
  start = learner.save()
  learner.step()
  learner.restore(make_learner([], seed=1).save())
  learner.step()
  learner.restore(start)
  learner.step()
  first, other, again = [row["action_spread"] for row in logger.rows]
  assert first == again != other


@pytest.mark.parametrize("make_key", [jax.random.PRNGKey, jax.random.key])
def test_either_kind_of_key_can_be_saved(
  learner_core, codec, make_data, make_key
):
  def make(seed):
    return learning.DiffusionLearner(
      learner_core,
      make_key(seed),
      iter([reverb.ReplaySample(info=(), data=make_data(0))]),
      codec,
    )

  learner = make(0)
  start = learner.save()
  learner.step()
  other = make(1)
  other.restore(start)
  other.step()
  assert_bit_equal(other.save(), learner.save())
