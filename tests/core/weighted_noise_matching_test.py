"""Weighted denoising, against closed forms, scipy and rlax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from acme_qsm import losses


@pytest.fixture
def arrays():
  """Noise prediction [4, 3], noises [4, 5, 3], weights [4, 5], Q [4, 5]."""
  rng = np.random.default_rng(0)
  return tuple(
    jnp.asarray(rng.normal(size=size), jnp.float32)
    if i != 2
    else jnp.asarray(rng.uniform(size=size), jnp.float32)
    for i, size in enumerate([(4, 3), (4, 5, 3), (4, 5), (4, 5)])
  )


def test_reverse_sampling(arrays):
  def total(*args):
    loss = losses.reverse_sampling_score_matching_loss(*args)
    return jnp.sum(loss), loss

  (_, loss), gradients = jax.jit(
    jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
  )(*arrays[:3])
  e, noise, weight, _ = (np.asarray(x, np.float64) for x in arrays)
  error = e[:, None] - noise
  np.testing.assert_allclose(
    loss, np.sum(weight * np.mean(error**2, axis=2), axis=1), rtol=1e-5
  )
  expected = 2 / 3 * np.einsum("bk,bka->ba", weight, error)
  np.testing.assert_allclose(gradients[0], expected, rtol=1e-4, atol=1e-6)
  # So that none flows into the critic that weighs.
  for gradient in gradients[1:]:
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


def test_reverse_sampling_wants_matching_shapes(arrays):
  e, noise, weight, _ = arrays
  for args in (
    (e, noise, weight[:, :1]),
    (e[:, :1], noise, weight),
    (e, noise[:, 0], weight),
    (e[:2], noise, weight),
  ):
    with pytest.raises(AssertionError):
      losses.reverse_sampling_score_matching_loss(*args)


def test_self_normalized_weights(arrays):
  q_value = arrays[3]
  got = losses.self_normalized_weights(q_value, 0.3)
  exact = np.exp(np.asarray(q_value, np.float64) / 0.3)
  np.testing.assert_allclose(
    got, exact / exact.sum(axis=1, keepdims=True), rtol=1e-4
  )
  # Whatever the size of Q, and whatever is added to it.
  huge = losses.self_normalized_weights(1e3 * q_value + 1e6, 1e-3)
  np.testing.assert_allclose(jnp.sum(huge, axis=1), 1.0, rtol=1e-6)
  np.testing.assert_array_equal(
    jnp.argmax(huge, axis=1), jnp.argmax(q_value, axis=1)
  )


def test_exponential_weights(arrays):
  q_value = arrays[3]
  exact = np.exp(np.asarray(q_value, np.float64) / 0.5) / 5
  np.testing.assert_allclose(
    losses.exponential_weights(q_value, 0.5), exact, rtol=1e-5
  )
  # One sample is enough.
  np.testing.assert_allclose(
    losses.exponential_weights(q_value[:, :1], 0.5), 5 * exact[:, :1], rtol=1e-5
  )


def test_exponential_weights_of_normalised_values(arrays):
  q_value = np.asarray(arrays[3], np.float64)
  score = (q_value - q_value.mean()) / q_value.std()
  for factor, shift in ((1.0, 0.0), (50.0, 300.0), (0.01, -2.0)):
    got = losses.exponential_weights(
      jnp.asarray(factor * q_value + shift, jnp.float32), 0.5, normalize=True
    )
    np.testing.assert_allclose(got, np.exp(score / 0.5) / 5, rtol=2e-3)
  # Equal values differ from their mean by rounding alone.
  for value in (0.0, 3.7, -1e5 / 3):
    equal = losses.exponential_weights(
      jnp.full((3, 4), value), 0.5, normalize=True
    )
    np.testing.assert_allclose(equal, 0.25, rtol=1e-3)


def test_effective_sample_size():
  weight = jnp.asarray([[0.25] * 4, [0, 1, 0, 0], [0.5, 0.25, 0.25, 0]])
  expected = [4.0, 1.0, 1 / 0.375]
  np.testing.assert_allclose(losses.effective_sample_size(weight), expected)
  # Of weights that do not sum to one as well.
  np.testing.assert_allclose(losses.effective_sample_size(7 * weight), expected)


def test_weight_kl_is_scipys(arrays):
  weight = losses.self_normalized_weights(arrays[3], 0.4)
  expected = scipy.stats.entropy(
    np.asarray(weight), np.full((4, 5), 0.2), axis=1
  )
  np.testing.assert_allclose(losses.weight_kl(weight), expected, rtol=1e-5)
  extremes = losses.weight_kl(jnp.asarray([[1.0, 0.0], [0.5, 0.5]]))
  np.testing.assert_allclose(extremes, [np.log(2), 0.0], atol=1e-7)


def test_temperature_loss_has_the_gradient_of_mpos_dual(arrays):
  import rlax

  q_value, target_kl = arrays[3], 0.4

  def ours(temperature):
    weight = losses.self_normalized_weights(q_value, temperature)
    return jnp.mean(losses.temperature_loss(temperature, weight, target_kl))

  def theirs(temperature):
    loss, _, _ = rlax.mpo_compute_weights_and_temperature_loss(
      q_value,
      rlax.LagrangePenalty(temperature, jnp.float32(target_kl)),
      lambda x: x,
      sample_axis=1,
    )
    return jnp.mean(loss)

  both = jax.jit(
    lambda temperature: (
      jax.grad(ours)(temperature),
      jax.grad(theirs)(temperature),
    )
  )
  for temperature in (0.1, 0.5, 3.0):
    np.testing.assert_allclose(*both(temperature), atol=1e-5)


def test_temperature_loss_values_and_constants(arrays):
  weight = losses.self_normalized_weights(arrays[3], 0.5)
  entropy = scipy.stats.entropy(np.asarray(weight), axis=1)
  np.testing.assert_allclose(
    losses.temperature_loss(2.0, weight, 0.4),
    2.0 * (0.4 + entropy - np.log(5)),
    rtol=1e-4,
    atol=1e-5,
  )
  gradient = jax.grad(
    lambda weight: jnp.sum(losses.temperature_loss(2.0, weight, 0.4))
  )(weight)
  np.testing.assert_array_equal(gradient, jnp.zeros_like(weight))


@pytest.mark.parametrize("target_kl", [np.log(4), 2.0, 0.0, -1.0])
def test_a_divergence_that_no_weights_have_is_refused(target_kl):
  weight = jnp.full((2, 4), 0.25)
  with pytest.raises(ValueError, match=r"target_kl.*log K = 1\.386.*K = 4"):
    losses.temperature_loss(1.0, weight, target_kl)
