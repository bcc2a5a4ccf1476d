"""Chains and their log-probabilities, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from acme_qsm import diffusion
from acme_qsm import losses

SAMPLERS = {
  "noise_mean": diffusion.sample,
  "posterior": diffusion.sample_posterior,
}
WIDE = {"sampler": "posterior", "posterior_variance": "fixed_large"}


def linear_denoiser(action, step):
  return 0.3 * action + 0.1 * step + 0.2


def exploding_denoiser(action, step):
  return 0.2 - 1.5 * action


def reference_step(schedule, noise_prediction, action, t, sampler, clip):
  """Mean and standard deviation as the papers write them, double precision."""
  betas = np.asarray(schedule.betas, np.float64)
  alphas, alpha_bars = 1 - betas, np.cumprod(1 - betas)
  previous = alpha_bars[t - 1] if t else 1.0
  if sampler == "noise_mean":
    mean = action - betas[t] / np.sqrt(1 - alpha_bars[t]) * noise_prediction
    return mean / np.sqrt(alphas[t]), np.sqrt(betas[t]) if t else 0.0
  clean = action - np.sqrt(1 - alpha_bars[t]) * noise_prediction
  clean = clean / np.sqrt(alpha_bars[t])
  if clip is not None:
    clean = np.clip(clean, -clip, clip)
  mean = betas[t] * np.sqrt(previous) / (1 - alpha_bars[t]) * clean
  mean += (1 - previous) * np.sqrt(alphas[t]) / (1 - alpha_bars[t]) * action
  return mean, np.sqrt(betas[t] * (1 - previous) / (1 - alpha_bars[t]))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("clip", [None, 0.4])
def test_log_probabilities_are_scipys(sampler, clip):
  schedule = diffusion.make_schedule("vp", 4)
  kwargs = {
    "sampler": sampler,
    "clip": clip,
    "temperature": 0.5,
    "min_std": 0.3,
  }
  chain, log_prob = diffusion.sample_chain(
    jax.random.key(0), exploding_denoiser, schedule, (6, 3), **kwargs
  )
  assert chain.shape == (5, 6, 3)
  assert log_prob.shape == (6, 4)
  samples = np.asarray(chain, np.float64)
  assert np.abs(samples[1:-1]).max() > 0.4  # Before the clip.
  floored = 0
  for t in range(4):
    action = samples[t + 1]
    if clip is not None and sampler == "noise_mean" and t < 3:
      action = np.clip(action, -clip, clip)
    mean, std = reference_step(
      schedule, exploding_denoiser(action, t), action, t, sampler, clip
    )
    floored += 0.5 * std < 0.3
    logpdf = scipy.stats.norm.logpdf(
      samples[t], loc=mean, scale=max(0.5 * std, 0.3)
    )
    np.testing.assert_allclose(
      log_prob[:, t], logpdf.sum(axis=-1), rtol=1e-4, atol=1e-4
    )
  assert 0 < floored < 4
  again = diffusion.chain_log_prob(
    exploding_denoiser, schedule, chain, **kwargs
  )
  np.testing.assert_allclose(again, log_prob, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_a_floor_it_is_the_sampler(sampler):
  schedule = diffusion.make_schedule("vp", 4)
  key, shape = jax.random.key(1), (16, 2)
  kwargs = {"temperature": 0.7, "clip": 0.8, "start_scale": 0.5}
  chain, _ = diffusion.sample_chain(
    key,
    linear_denoiser,
    schedule,
    shape,
    sampler=sampler,
    min_std=1e-6,
    **kwargs,
  )
  actions = SAMPLERS[sampler](key, linear_denoiser, schedule, shape, **kwargs)
  # The last step's noise: five times the floor.
  np.testing.assert_allclose(jnp.clip(chain[0], -0.8, 0.8), actions, atol=1e-5)


def test_a_chain_of_the_large_variance_is_that_sampler_s():
  schedule = diffusion.make_schedule("vp", 4)
  key, shape = jax.random.key(1), (16, 2)
  chain, log_prob = diffusion.sample_chain(
    key, linear_denoiser, schedule, shape, min_std=1e-6, **WIDE
  )
  actions = diffusion.sample_posterior(
    key, linear_denoiser, schedule, shape, variance="fixed_large"
  )
  np.testing.assert_allclose(jnp.clip(chain[0], -1, 1), actions, atol=1e-5)
  again = diffusion.chain_log_prob(
    linear_denoiser, schedule, chain, min_std=1e-6, **WIDE
  )
  # The last step's density is that of its floor, which magnifies rounding.
  np.testing.assert_allclose(again[:, 1:], log_prob[:, 1:], rtol=1e-4)
  with pytest.raises(ValueError, match="'learned'"):
    diffusion.sample_chain(
      key, linear_denoiser, schedule, shape, posterior_variance="learned"
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_floor_is_the_standard_deviation_of_the_last_step(sampler):
  size = 20_000
  schedule = diffusion.make_schedule("vp", 3)
  chain, _ = diffusion.sample_chain(
    jax.random.key(2),
    lambda action, step: jnp.zeros_like(action),
    schedule,
    (size, 1),
    sampler=sampler,
    clip=None,
  )
  # Without a prediction the last step's mean is a_0 / sqrt(alpha_0).
  noise = chain[0] - chain[1] / jnp.sqrt(schedule.alphas[0])
  # Five standard errors.
  np.testing.assert_allclose(
    jnp.std(noise), 0.1, atol=5 * 0.1 / np.sqrt(2 * size)
  )
  np.testing.assert_allclose(jnp.mean(noise), 0, atol=0.5 / np.sqrt(size))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gradient_of_a_linear_denoiser(sampler):
  # eps = theta a in one dimension, unclipped: both means are
  # (1 - c theta) a / sqrt(alpha) with c = beta / sqrt(1 - alpha_bar).
  schedule, theta = diffusion.make_schedule("vp", 4), 0.4
  chain, _ = diffusion.sample_chain(
    jax.random.key(3),
    lambda action, step: theta * action,
    schedule,
    (5, 1),
    sampler=sampler,
    clip=None,
  )

  def log_prob(theta):
    return diffusion.chain_log_prob(
      lambda action, step: theta * action,
      schedule,
      chain,
      sampler=sampler,
      clip=None,
    )

  gradient = jax.jacobian(log_prob)(theta)
  betas, alphas, alpha_bars = (np.asarray(x, np.float64) for x in schedule)
  samples = np.asarray(chain, np.float64)[..., 0]
  for t in range(4):
    _, std = reference_step(schedule, 0.0, 0.0, t, sampler, None)
    std = max(std, 0.1)
    c = betas[t] / np.sqrt(1 - alpha_bars[t])
    a, drawn = samples[t + 1], samples[t]
    slope = -c * a / np.sqrt(alphas[t])
    error = drawn - (1 - c * theta) * a / np.sqrt(alphas[t])
    np.testing.assert_allclose(
      gradient[:, t], error / std**2 * slope, rtol=1e-3, atol=1e-3
    )


def test_the_chain_and_the_sampled_log_probabilities_are_constants():
  schedule = diffusion.make_schedule("vp", 3)

  def sample(theta):
    return diffusion.sample_chain(
      jax.random.key(4), lambda a, t: theta * a, schedule, (4, 2)
    )

  chain, _ = sample(0.3)
  into_chain = jax.grad(
    lambda chain: jnp.sum(
      diffusion.chain_log_prob(linear_denoiser, schedule, chain)
    )
  )(chain)
  np.testing.assert_array_equal(into_chain, jnp.zeros_like(chain))
  assert jax.grad(lambda theta: jnp.sum(sample(theta)[1]))(0.3) == 0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_policy_gradient_is_the_gradient_of_the_expected_reward(sampler):
  # Psenka et al. (2024), eq. 9, of a one-dimensional linear denoiser and the
  # reward -(a - 0.5)^2. Then the action is normal: its variance follows the
  # recursion below, whose derivative is taken by differences.
  schedule, theta, size = diffusion.make_schedule("vp", 3), 0.6, 400_000
  betas, alphas, alpha_bars = (np.asarray(x, np.float64) for x in schedule)

  def expected_reward(theta):
    variance = 1.0
    for t in reversed(range(3)):
      _, std = reference_step(schedule, 0.0, 0.0, t, sampler, None)
      factor = 1 - betas[t] / np.sqrt(1 - alpha_bars[t]) * theta
      variance = factor**2 / alphas[t] * variance + max(std, 0.1) ** 2
    return -(variance + 0.5**2)

  exact = (expected_reward(theta + 1e-5) - expected_reward(theta - 1e-5)) / 2e-5
  chain, _ = diffusion.sample_chain(
    jax.random.key(5),
    lambda action, step: theta * action,
    schedule,
    (size, 1),
    sampler=sampler,
    clip=None,
  )
  reward = -((chain[0, :, 0] - 0.5) ** 2)

  def loss(theta):
    log_prob = diffusion.chain_log_prob(
      lambda action, step: theta * action,
      schedule,
      chain,
      sampler=sampler,
      clip=None,
    )
    return losses.diffusion_policy_gradient_loss(
      log_prob, reward - jnp.mean(reward)
    )

  # One derivative per example, forwards: theta is a number.
  _, gradients = jax.jvp(loss, (theta,), (1.0,))
  # Five standard errors of the mean.
  np.testing.assert_allclose(
    -jnp.mean(gradients), exact, atol=5 * jnp.std(gradients) / np.sqrt(size)
  )
  assert abs(exact) > 10 * jnp.std(gradients) / np.sqrt(size)


def test_compiled_and_over_keys_it_is_the_same():
  schedule = diffusion.make_schedule("cosine", 3)

  def sample(key):
    return diffusion.sample_chain(key, linear_denoiser, schedule, (4, 2))

  keys = jax.random.split(jax.random.key(6), 2)
  together = jax.jit(jax.vmap(sample))(keys)
  for i in range(2):
    for a, b in zip(together, sample(keys[i]), strict=True):
      np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-4)


def test_arguments_out_of_range_are_named():
  schedule = diffusion.make_schedule("vp", 2)
  for kwargs, name in (
    ({"min_std": 0.0}, "min_std"),
    ({"clip": -1.0}, "clip"),
    ({"temperature": -1.0}, "temperature"),
    ({"sampler": "ddim"}, "'ddim'"),
  ):
    with pytest.raises(ValueError, match=name):
      diffusion.sample_chain(
        jax.random.key(0), linear_denoiser, schedule, (1, 1), **kwargs
      )
    with pytest.raises(ValueError, match=name):
      diffusion.chain_log_prob(
        linear_denoiser, schedule, jnp.zeros((3, 1, 1)), **kwargs
      )
  with pytest.raises(AssertionError):
    diffusion.chain_log_prob(linear_denoiser, schedule, jnp.zeros((2, 1, 1)))
