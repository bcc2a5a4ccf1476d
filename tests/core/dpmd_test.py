"""Diffusion policy mirror descent, against numpy and closed forms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm import losses
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.methods import dpmd


def make_state(mean=0.0, variance=0.0, temperature=1.0):
  log_value = jnp.log(jnp.float32(temperature))
  return dpmd.DPMDState(
    temperature_lib.Temperature(log_value, ()),
    jnp.float32(mean),
    jnp.float32(variance),
  )


STANDARDIZED = acme_qsm.DPMDConfig(
  num_policy_samples=1,
  weights="normalized_exponential",
  temperature_update="constant",
  q_statistics_decay=0.9,
  q_value_clip=2.0,
)


# In the second, the mean is 1 000 deviations: a mean square less the square of
# the mean, in single precision, would be rounding alone.
@pytest.mark.parametrize(("center", "scale"), [(40.0, 3.0), (-100.0, 0.1)])
def test_q_is_standardized_by_running_moments(center, scale):
  rng = np.random.default_rng(0)
  state, means, squares = make_state(), 0.0, 0.0
  standardize = jax.jit(functools.partial(dpmd.standardize, STANDARDIZED))
  for updates in range(200):
    q_value = rng.normal(center, scale, size=(64, 1)).astype(np.float32)
    found, state = standardize(state, q_value, updates)
    means = 0.9 * means + 0.1 * q_value.mean(dtype=np.float64)
    squares = 0.9 * squares + 0.1 * (q_value.astype(np.float64) ** 2).mean()
    present = 1 - 0.9 ** (updates + 1)
    mean = means / present
    deviation = np.sqrt(squares / present - mean**2)
    # (Q - mean) / deviation: not Q - mean / deviation.
    expected = np.clip((q_value - mean) / deviation, -2.0, 2.0)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_allclose(state.q_variance, deviation**2, rtol=1e-2)
  assert np.max(np.abs(found)) == 2.0


def test_equal_values_are_of_no_weight():
  found, _ = dpmd.standardize(
    STANDARDIZED, make_state(), jnp.full((8, 1), 7.0), jnp.int32(0)
  )
  assert np.all(np.abs(found) <= 2.0)
  assert np.all(found == found[0])


def test_weights_of_samples_need_no_moments():
  config = acme_qsm.DPMDConfig(num_policy_samples=4)
  q_value = jnp.arange(8.0).reshape(2, 4)
  state = make_state(mean=3.0)
  found, after = dpmd.standardize(config, state, q_value, jnp.int32(0))
  np.testing.assert_array_equal(found, q_value)
  assert after is state


def test_the_loss_of_weighted_denoising():
  rng = np.random.default_rng(0)
  prediction, noise = rng.normal(size=(2, 6, 3)).astype(np.float32)
  weight = rng.uniform(size=6).astype(np.float32)

  def loss(prediction, noise, weight):
    return jnp.sum(losses.weighted_denoising_loss(prediction, noise, weight))

  np.testing.assert_allclose(
    losses.weighted_denoising_loss(prediction, noise, weight),
    weight * ((prediction - noise) ** 2).mean(axis=1),
    rtol=1e-5,
  )
  gradients = jax.grad(loss, argnums=(0, 1, 2))(prediction, noise, weight)
  np.testing.assert_allclose(
    gradients[0], 2 / 3 * weight[:, None] * (prediction - noise), rtol=1e-5
  )
  assert not np.any(gradients[1])
  assert not np.any(gradients[2])


# The denoiser of `make_constant_networks` predicts a constant, so that the
# policy is what it is, and its actions are those of no learning.
CONFIG = acme_qsm.DPMDConfig(
  num_denoising_steps=3,
  noise_schedule="vp",
  critic_learning_rate=1e-12,
  num_policy_samples=8,
  boltzmann_temperature=0.5,
  temperature_update="constant",
  exploration_noise=0.0,
  target_action_noise=0.0,
)


def test_the_gradient_is_that_of_weighted_denoising(
  make_constant_networks, make_step, make_flat_batch
):
  # Of a constant prediction p per step, the gradient is 2 (p - E[w noise]): and
  # weights say nothing of the noises that are added after, so E[w noise] = 0,
  # while they sum to one.
  size = 4_000
  networks = make_constant_networks([[3.0], [3.0]])
  gradient, metrics, _ = make_step(networks, CONFIG)(make_flat_batch(size))
  # Five standard errors of a third of the batch, of weights that count as few.
  tolerance = 5 * 2 * np.sqrt((1 + 0.09) / 3 / size)
  np.testing.assert_allclose(gradient[:, 0], 2 / 3 * 0.3, atol=tolerance)
  assert 1.0 < float(metrics["effective_sample_size"]) < 8.0


def test_the_actions_weighed_have_the_target_s_noise(
  make_constant_networks, make_flat_batch
):
  # A sampler without noise draws -1 for all: weights are even, but for noise
  # that stays in the box, of which those of Q = 3 a are a softmax.
  size, num_samples = 2_000, 8
  config = dataclasses.replace(
    CONFIG,
    num_policy_samples=num_samples,
    sampling_temperature=0.0,
    sampling_start_scale=0.0,
  )
  networks = make_constant_networks([[3.0], [3.0]])

  def sample_size(noise):
    core = acme_qsm.make_learner_core(
      networks, dataclasses.replace(config, target_action_noise=noise)
    )
    _, metrics = jax.jit(core.step)(
      core.init(jax.random.key(0)), make_flat_batch(size)
    )
    return float(metrics["effective_sample_size"])

  assert sample_size(0.0) == pytest.approx(num_samples)
  noise = np.random.default_rng(0).normal(scale=0.05, size=(size, num_samples))
  weight = np.exp(3.0 * np.maximum(noise, 0.0) / config.boltzmann_temperature)
  weight /= weight.sum(axis=1, keepdims=True)
  each = 1 / np.sum(weight**2, axis=1)
  # Five standard errors of two means.
  tolerance = 5 * each.std() * np.sqrt(2 / size)
  assert sample_size(0.05) == pytest.approx(each.mean(), abs=tolerance)


def test_the_action_of_the_critics_target_is_taken(
  make_constant_networks, monkeypatch, make_flat_batch
):
  # With one sample, no other is drawn than that of the critics' target.
  drawn, draw_several = [], dpmd.actions.draw_several

  def note(*args):
    drawn.append(args[-1])
    return draw_several(*args)

  monkeypatch.setattr(dpmd.actions, "draw_several", note)
  config = dataclasses.replace(
    CONFIG, num_policy_samples=1, weights="normalized_exponential"
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[3.0], [3.0]]), config
  )
  state, metrics = jax.jit(core.step)(
    core.init(jax.random.key(0)), make_flat_batch(512)
  )
  assert drawn == [1]
  assert np.isfinite(metrics["denoiser_loss"])
  # The moments of 3 a of the policy's own actions, within the box.
  assert abs(state.method_state.q_mean) < 3.0
  assert 0.0 < state.method_state.q_variance <= 9.0
