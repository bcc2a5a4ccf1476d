"""Soft actor-critic, against scipy, quadrature and closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import acme_qsm
from acme_qsm import losses
from acme_qsm import networks as networks_lib
from acme_qsm.methods import gaussian


def test_the_density_of_a_squashed_normal():
  rng = np.random.default_rng(0)
  mean, log_std = rng.normal(size=(2, 50, 3)).astype(np.float32)
  action = rng.normal(scale=3.0, size=(50, 3)).astype(np.float32)
  found = losses.squashed_log_prob(action, mean, log_std)
  wide = action.astype(np.float64)
  log_normal = scipy.stats.norm.logpdf(wide, mean, np.exp(log_std))
  # log(1 - tanh^2) in double precision.
  expected = np.sum(log_normal + 2 * np.log(np.cosh(wide)), axis=1)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_it_is_a_density():
  squashed = np.linspace(-1, 1, 200_001)[1:-1]
  action = np.arctanh(squashed)[:, None].astype(np.float32)
  log_prob = losses.squashed_log_prob(
    action, np.full_like(action, 0.4), np.full_like(action, -0.3)
  )
  mass = np.sum(np.exp(log_prob)) * (squashed[1] - squashed[0])
  assert mass == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("action", [30.0, -30.0, 200.0])
def test_it_is_finite_where_the_squashed_action_is_one(action):
  found = losses.squashed_log_prob(
    jnp.full((1, 1), action), jnp.full((1, 1), action), jnp.zeros((1, 1))
  )
  expected = -0.5 * np.log(2 * np.pi) + 2 * (abs(action) - np.log(2))
  assert float(found[0]) == pytest.approx(expected, rel=1e-4)


def make_networks(mean, log_std, slope, value=0.0):
  """A policy whose parameters are its moments, and linear critics."""
  start = (jnp.float32(mean), jnp.float32(log_std))

  def propose(params, observation):
    shape = (observation.shape[0], 1)
    return networks_lib.Gaussian(*(jnp.broadcast_to(p, shape) for p in params))

  return networks_lib.GaussianNetworks(
    init_policy=lambda key: start,
    propose=propose,
    init_critics=lambda key: {
      "slope": jnp.full((2, 1), slope),
      "value": jnp.full((2,), value),
    },
    q_values=lambda params, observation, action: (
      params["slope"] @ action.T + params["value"][:, None]
    ),
    action_size=1,
  )


CONFIG = acme_qsm.GaussianConfig(
  critic_learning_rate=1e-12, entropy_temperature=0.3, target_entropy=-0.5
)


def integrate(function, mean, deviation):
  """E[function(u)] of a normal u, by sums."""
  action = np.linspace(mean - 10 * deviation, mean + 10 * deviation, 100_001)
  density = scipy.stats.norm.pdf(action, mean, deviation)
  return np.sum(density * function(action)) * (action[1] - action[0])


def test_the_loss_and_its_gradient(make_step, make_flat_batch):
  mean, log_std, slope, size = 0.2, -0.7, 1.5, 40_000
  gradient, metrics, _ = make_step(make_networks(mean, log_std, slope), CONFIG)(
    make_flat_batch(size)
  )

  def expected_loss(mean, log_std):
    deviation = np.exp(log_std)

    def loss(action):
      log_prob = scipy.stats.norm.logpdf(action, mean, deviation)
      log_prob += 2 * np.log(np.cosh(action))
      return 0.3 * log_prob - slope * np.tanh(action)

    return integrate(loss, mean, deviation)

  value = expected_loss(mean, log_std)
  # Five standard errors of a loss that deviates by about 0.7.
  assert float(metrics["policy_loss"]) == pytest.approx(value, abs=0.02)
  small = 1e-4
  expected = [
    (
      expected_loss(mean + small * by_mean, log_std + small * by_std)
      - expected_loss(mean - small * by_mean, log_std - small * by_std)
    )
    / (2 * small)
    for by_mean, by_std in ((1, 0), (0, 1))
  ]
  np.testing.assert_allclose(gradient, expected, atol=0.02)


def test_the_temperature_moves_towards_the_target_entropy(
  make_step, make_flat_batch
):
  # Too certain a policy raises it, too uncertain a one lowers it; Adam's first
  # step is of its rate. Without one, it stays.
  def move(log_std, config):
    networks = make_networks(0.0, log_std, 0.0)
    _, metrics, after = make_step(networks, config)(make_flat_batch(512))
    return metrics["entropy"], float(after.method_state.log_value)

  for log_std, sign in ((-2.0, 1.0), (-0.5, -1.0)):
    entropy, found = move(log_std, CONFIG)
    assert (entropy < -0.5) == (sign > 0)
    assert found == pytest.approx(np.log(0.3) + sign * 3e-4, abs=1e-6)
  still = dataclasses.replace(CONFIG, entropy_temperature_learning_rate=0.0)
  assert move(-2.0, still)[1] == pytest.approx(np.log(0.3))


def test_the_critics_target_has_the_entropy(make_step, make_flat_batch):
  # Flat critics of value 2: their loss is of 2 - 0.9 (2 - 0.3 log pi), in units
  # of scaled reward whatever the scale.
  config = dataclasses.replace(
    CONFIG, discount=0.9, reward_scale=0.2, num_target_candidates=1
  )
  log_std, size = -0.7, 600_000
  networks = make_networks(0.1, log_std, 0.0, value=2.0)

  def square(action, weight):
    log_prob = scipy.stats.norm.logpdf(action, 0.1, np.exp(log_std))
    log_prob += 2 * np.log(np.cosh(action))
    return (2.0 - 0.9 * (2.0 - weight * log_prob)) ** 2

  found, expected = [], []
  for weight in (0.0, 0.3):
    step = make_step(
      networks, dataclasses.replace(config, entropy_in_target=weight > 0)
    )
    _, metrics, _ = step(make_flat_batch(size, discount=1.0))
    found.append(float(metrics["critic_loss"]))
    expected.append(
      integrate(
        lambda action, weight=weight: square(action, weight),
        0.1,
        np.exp(log_std),
      )
    )
  # Both up to the same constant factor of the critics' loss. A square deviates
  # by 2.6 times its mean, so that the mean of so many does by 0.0034.
  assert abs(expected[1] / expected[0] - 1) > 0.2
  assert found[1] / found[0] == pytest.approx(
    expected[1] / expected[0], rel=0.02
  )


def test_evaluation_takes_the_mode():
  networks = make_networks(0.7, -1.0, 0.0)
  params = networks.init_policy(jax.random.key(0))
  observation = jnp.zeros((1_000, 1))
  key = jax.random.key(1)

  def act(evaluation, **kwargs):
    config = dataclasses.replace(CONFIG, **kwargs)
    sampler = gaussian.make_sampler(networks, config, evaluation)
    return np.asarray(sampler(params, key, observation))

  np.testing.assert_allclose(act(True), np.tanh(0.7), rtol=1e-6)
  np.testing.assert_array_equal(act(True, evaluate_mode=False), act(False))
  drawn = np.arctanh(act(False))
  # Five standard errors.
  assert drawn.mean() == pytest.approx(0.7, abs=5 * np.exp(-1) / np.sqrt(1e3))
  assert drawn.std() == pytest.approx(np.exp(-1), rel=5 / np.sqrt(2e3))


def test_the_networks(environment_spec):
  config = acme_qsm.GaussianConfig(
    policy_hidden_sizes=(8,), critic_hidden_sizes=(8,)
  )
  networks = acme_qsm.make_networks(environment_spec, config)
  params = networks.init_policy(jax.random.key(0))
  # Whatever the network says, deviations stay within their bounds.
  params = jax.tree.map(lambda x: 1e3 * (x + 1.0), params)
  observation = jax.random.normal(jax.random.key(1), (6, 3))
  mean, log_std = networks.propose(params, observation)
  assert mean.shape == log_std.shape == (6, 2)
  assert np.all(log_std >= -5.0)
  assert np.all(log_std <= 2.0)
