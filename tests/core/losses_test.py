"""Losses and their gradients, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import losses


@pytest.fixture
def arrays():
  """Noise prediction, action gradient and noisy action, each [4, 3]."""
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=(3, 4, 3)).astype(np.float32))


ALPHA_BAR = jnp.asarray([0.9, 0.5, 0.1, 0.01])


def test_q_score_matching(arrays):
  def total(*args):
    loss = losses.q_score_matching_loss(*args)
    assert loss.shape == (4,)
    return jnp.sum(loss), loss

  (_, loss), gradients = jax.jit(
    jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
  )(arrays[0], arrays[1], 2.5)
  # Least at minus the scaled gradient, which is held constant.
  error = np.asarray(arrays[0], np.float64) + 2.5 * np.asarray(arrays[1])
  np.testing.assert_allclose(loss, np.mean(error**2, axis=1), rtol=1e-5)
  np.testing.assert_allclose(gradients[0], 2 / 3 * error, rtol=1e-5)
  for gradient in gradients[1:]:
    np.testing.assert_array_equal(gradient, 0.0)


def test_q_score_matching_wants_matching_shapes(arrays):
  with pytest.raises(AssertionError):
    losses.q_score_matching_loss(arrays[0], arrays[1, :, :1], 1.0)
  with pytest.raises(AssertionError):
    losses.q_score_matching_loss(arrays[0, 0], arrays[1, 0], 1.0)


def test_boltzmann_score_matching(arrays):
  def total(*args):
    loss = losses.boltzmann_score_matching_loss(*args)
    return jnp.sum(loss), loss

  (_, loss), gradients = jax.jit(
    jax.value_and_grad(total, argnums=range(5), has_aux=True)
  )(*arrays, ALPHA_BAR, 1.5)
  e, g, a = np.asarray(arrays, np.float64)
  error = e - np.sqrt(1 - np.asarray(ALPHA_BAR))[:, None] * (a - 1.5 * g)
  np.testing.assert_allclose(loss, np.mean(error**2, axis=1), rtol=1e-5)
  np.testing.assert_allclose(gradients[0], 2 / 3 * error, rtol=1e-4, atol=1e-6)
  for gradient in gradients[1:]:
    np.testing.assert_array_equal(gradient, 0.0)


def test_boltzmann_without_a_critic_is_denoising_of_the_prior():
  # Q = 0 leaves the prior N(0, I), whose denoiser is regressed on a_t: of
  # a_t = sqrt(abar) a + sqrt(1 - abar) eps it is sqrt(1 - abar) a_t.
  noisy = jnp.linspace(-3, 3, 8)[:, None]
  for alpha_bar in ALPHA_BAR:
    loss = losses.boltzmann_score_matching_loss(
      jnp.sqrt(1 - alpha_bar) * noisy,
      jnp.zeros((8, 1)),
      noisy,
      jnp.full((8,), alpha_bar),
      10.0,
    )
    np.testing.assert_allclose(loss, 0.0, atol=1e-12)


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


def test_td_loss_and_its_gradients():
  # The lowest next value counts, and none after a termination: targets are 0.5
  # + 0.99 * 10; -1; 2 - 0.9 * 30.
  targets = np.array([10.4, -1.0, -25.0])

  def total(*args):
    loss = losses.clipped_double_q_loss(*args)
    return jnp.sum(loss), loss

  (_, loss), gradients = jax.jit(
    jax.value_and_grad(total, argnums=(0, 3), has_aux=True)
  )(Q_VALUES, REWARD, DISCOUNT, NEXT_Q_VALUES)
  errors = np.asarray(Q_VALUES) - targets
  np.testing.assert_allclose(loss, np.sum(errors**2, axis=0), rtol=1e-5)
  np.testing.assert_allclose(gradients[0], 2 * errors, rtol=1e-5)
  np.testing.assert_array_equal(gradients[1], np.zeros((2, 3)))
  # Of one critic.
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
