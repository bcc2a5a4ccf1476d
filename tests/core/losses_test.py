"""Losses and their gradients, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion
from acme_qsm import losses


@pytest.fixture
def arrays():
  """Noise prediction, action gradient and noisy action, each [4, 3]."""
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(3, 4, 3)).astype(np.float32))


ALPHA_BAR = jnp.asarray([0.9, 0.5, 0.1, 0.01])


def test_q_score_matching_values(arrays):
  noise_prediction, action_gradient, _ = np.asarray(arrays, np.float64)
  expected = [
    sum((e + 2.5 * g) ** 2 for e, g in zip(es, gs, strict=True)) / 3
    for es, gs in zip(noise_prediction, action_gradient, strict=True)
  ]
  got = losses.q_score_matching_loss(arrays[0], arrays[1], 2.5)
  assert got.shape == (4,)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_q_score_matching_is_least_at_minus_the_scaled_gradient(arrays):
  loss = losses.q_score_matching_loss(-2.5 * arrays[1], arrays[1], 2.5)
  np.testing.assert_allclose(loss, 0.0, atol=1e-12)


def test_q_score_matching_gradient(arrays):
  gradient = jax.grad(
    lambda e: jnp.sum(losses.q_score_matching_loss(e, arrays[1], 2.5))
  )(arrays[0])
  expected = 2 / 3 * (arrays[0] + 2.5 * arrays[1])
  np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_q_score_matching_holds_the_target_constant(arrays):
  gradients = jax.grad(
    lambda g, scale: jnp.sum(losses.q_score_matching_loss(arrays[0], g, scale)),
    argnums=(0, 1),
  )(arrays[1], 2.5)
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_no_gradient_into_the_critic(arrays):
  # The whole way: a critic with parameters, its action gradient, the loss.
  def loss(critic_params):
    action_gradient = jax.grad(
      lambda a: jnp.sum(jnp.tanh(a @ critic_params) ** 2)
    )(arrays[2])
    return jnp.sum(
      losses.q_score_matching_loss(arrays[0], action_gradient, 1.0)
    )

  params = jnp.ones((3,))
  assert loss(params) != loss(2 * params)
  np.testing.assert_array_equal(jax.grad(loss)(params), jnp.zeros(3))


def test_q_score_matching_wants_matching_shapes(arrays):
  with pytest.raises(AssertionError):
    losses.q_score_matching_loss(arrays[0], arrays[1, :, :1], 1.0)
  with pytest.raises(AssertionError):
    losses.q_score_matching_loss(arrays[0, 0], arrays[1, 0], 1.0)


def test_boltzmann_values(arrays):
  e, g, a = np.asarray(arrays, np.float64)
  expected = []
  for i in range(4):
    target = np.sqrt(1 - float(ALPHA_BAR[i])) * (a[i] - 1.5 * g[i])
    expected.append(((e[i] - target) ** 2).mean())
  got = losses.boltzmann_score_matching_loss(
    arrays[0], arrays[1], arrays[2], ALPHA_BAR, 1.5
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_boltzmann_gradients(arrays):
  gradients = jax.grad(
    lambda e, g, a, alpha_bar, scale: jnp.sum(
      losses.boltzmann_score_matching_loss(e, g, a, alpha_bar, scale)
    ),
    argnums=(0, 1, 2, 3, 4),
  )(arrays[0], arrays[1], arrays[2], ALPHA_BAR, 1.5)
  e, g, a = np.asarray(arrays, np.float64)
  target = np.sqrt(1 - np.asarray(ALPHA_BAR))[:, None] * (a - 1.5 * g)
  np.testing.assert_allclose(
    gradients[0], 2 / 3 * (e - target), rtol=1e-4, atol=1e-6
  )
  for gradient in gradients[1:]:
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_boltzmann_without_a_critic_is_denoising_of_the_prior():
  # Q = 0 leaves the prior N(0, I), whose denoiser least squares finds from
  # samples: eps regressed on a_t. The loss must be least there.
  size = 100_000
  action_key, noise_key = jax.random.split(jax.random.key(0))
  action = jax.random.normal(action_key, (size, 1))
  noise = jax.random.normal(noise_key, (size, 1))
  schedule = diffusion.make_schedule("vp", 5)
  for t in range(5):
    noisy = diffusion.add_noise(schedule, action, noise, jnp.asarray(t))
    slope = jnp.sum(noisy * noise) / jnp.sum(noisy**2)
    loss = losses.boltzmann_score_matching_loss(
      slope * noisy,
      jnp.zeros((size, 1)),
      noisy,
      jnp.full((size,), schedule.alpha_bars[t]),
      10.0,
    )
    # The slope's standard error is below 1 / sqrt(size); the loss is the
    # square of its error times E[a_t^2] = 1. Five standard errors.
    assert jnp.mean(loss) < 25 / size


def test_boltzmann_target_is_the_score_of_the_density():
  # With hardly any noise left, the target must be the score of
  # exp(kappa Q(a)) N(a; 0, I), here by autodiff of its logarithm.
  kappa, alpha_bar = 3.0, 0.999

  def q_value(a):
    return -0.5 * jnp.sum((a - 0.3) ** 2) + jnp.sum(jnp.sin(2 * a))

  def log_density(a):
    return kappa * q_value(a) + jnp.sum(
      jax.scipy.stats.norm.logpdf(a)  # The prior.
    )

  action = jax.random.normal(jax.random.key(1), (16, 2))
  score = jax.vmap(jax.grad(log_density))(action)
  loss = losses.boltzmann_score_matching_loss(
    -np.sqrt(1 - alpha_bar) * score,
    jax.vmap(jax.grad(q_value))(action),
    action,
    jnp.full((16,), alpha_bar),
    kappa,
  )
  np.testing.assert_allclose(loss, 0.0, atol=1e-9)


def test_boltzmann_wants_matching_shapes(arrays):
  e, g, a = arrays
  with pytest.raises(AssertionError):
    losses.boltzmann_score_matching_loss(e, g, a[:2], ALPHA_BAR, 1.0)
  with pytest.raises(AssertionError):
    losses.boltzmann_score_matching_loss(e, g, a, jnp.asarray(0.5), 1.0)


# Two critics, three transitions: one goes on (or was truncated by a time
# limit), one terminated, one goes on with a shorter n-step discount.
Q_VALUES = jnp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
NEXT_Q_VALUES = jnp.asarray([[10.0, 20.0, 30.0], [20.0, 10.0, -30.0]])
REWARD = jnp.asarray([0.5, -1.0, 2.0])
DISCOUNT = jnp.asarray([0.99, 0.0, 0.9])


def test_td_loss_values():
  # Targets: 0.5 + 0.99 * 10; -1; 2 - 0.9 * 30.
  targets = np.array([10.4, -1.0, -25.0])
  expected = [
    (targets[0] - 1) ** 2 + (targets[0] - 4) ** 2,
    (targets[1] - 2) ** 2 + (targets[1] - 5) ** 2,
    (targets[2] - 3) ** 2 + (targets[2] - 6) ** 2,
  ]
  got = losses.clipped_double_q_loss(Q_VALUES, REWARD, DISCOUNT, NEXT_Q_VALUES)
  assert got.shape == (3,)
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_termination_ignores_the_next_values_and_truncation_does_not():
  def loss(next_q_values):
    return losses.clipped_double_q_loss(
      Q_VALUES, REWARD, DISCOUNT, next_q_values
    )

  before, after = loss(NEXT_Q_VALUES), loss(NEXT_Q_VALUES + 7)
  assert before[0] != after[0]
  assert before[1] == after[1]
  assert before[2] != after[2]


def test_only_the_lowest_critic_counts_in_the_target():
  raised = NEXT_Q_VALUES.at[1, 0].add(100).at[0, 1].add(100).at[0, 2].add(100)
  np.testing.assert_array_equal(
    losses.clipped_double_q_loss(Q_VALUES, REWARD, DISCOUNT, raised),
    losses.clipped_double_q_loss(Q_VALUES, REWARD, DISCOUNT, NEXT_Q_VALUES),
  )


def test_td_loss_gradients():
  gradients = jax.grad(
    lambda *args: jnp.sum(losses.clipped_double_q_loss(*args)),
    argnums=(0, 3),
  )(Q_VALUES, REWARD, DISCOUNT, NEXT_Q_VALUES)
  targets = jnp.asarray([10.4, -1.0, -25.0])
  np.testing.assert_allclose(gradients[0], -2 * (targets - Q_VALUES), rtol=1e-5)
  np.testing.assert_array_equal(gradients[1], jnp.zeros((2, 3)))


def test_td_loss_of_one_critic():
  loss = losses.clipped_double_q_loss(
    Q_VALUES[:1], REWARD, DISCOUNT, NEXT_Q_VALUES[:1]
  )
  np.testing.assert_allclose(loss, [9.4**2, 9.0, 26.0**2], rtol=1e-5)


def test_td_loss_wants_matching_shapes():
  with pytest.raises(AssertionError):
    losses.clipped_double_q_loss(
      Q_VALUES, REWARD[:, None], DISCOUNT, NEXT_Q_VALUES
    )
  with pytest.raises(AssertionError):
    losses.clipped_double_q_loss(
      Q_VALUES, REWARD, DISCOUNT, NEXT_Q_VALUES[:, :1]
    )
