"""Chains, their log-probabilities and policy gradients, on closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from acme_qsm import diffusion
from acme_qsm import losses
from tests.core import closed_forms

STEPS = {
  "noise_mean": {"sampler": "noise_mean"},
  "posterior": {"sampler": "posterior"},
  "fixed_large": {"sampler": "posterior", "posterior_variance": "fixed_large"},
}
each_step = pytest.mark.parametrize("name", STEPS)


def exploding_denoiser(action, step):
  return 0.2 - 1.5 * action


def run(name, key, denoise_fn, schedule, shape, **kwargs):
  """A chain, its log-probabilities, and those found again of that chain."""
  kwargs = {**STEPS[name], **kwargs}
  start_scale = kwargs.pop("start_scale", 1.0)

  @jax.jit
  def both(key):
    chain, log_prob = diffusion.sample_chain(
      key, denoise_fn, schedule, shape, start_scale=start_scale, **kwargs
    )
    again = diffusion.chain_log_prob(denoise_fn, schedule, chain, **kwargs)
    return chain, log_prob, again

  return both(key)


@each_step
@pytest.mark.parametrize("clip", [None, 0.4])
def test_log_probabilities_are_scipys(name, clip):
  schedule = diffusion.make_schedule("vp", 4)
  chain, log_prob, again = run(
    name,
    jax.random.key(0),
    exploding_denoiser,
    schedule,
    (6, 3),
    clip=clip,
    temperature=0.5,
    min_std=0.3,
  )
  assert chain.shape == (5, 6, 3)
  assert log_prob.shape == (6, 4)
  samples = np.asarray(chain, np.float64)
  assert np.abs(samples[1:-1]).max() > 0.4  # Before the clip.
  floored = 0
  for t in range(4):
    action = samples[t + 1]
    if clip is not None and name == "noise_mean" and t < 3:
      action = np.clip(action, -clip, clip)
    mean, std = closed_forms.reverse_step(
      closed_forms.alpha_bars_of(schedule),
      *(t, exploding_denoiser(action, t), action, name, clip),
    )
    floored += 0.5 * std < 0.3
    logpdf = scipy.stats.norm.logpdf(
      samples[t], loc=mean, scale=max(0.5 * std, 0.3)
    )
    np.testing.assert_allclose(
      log_prob[:, t], logpdf.sum(axis=-1), rtol=1e-4, atol=1e-3
    )
  assert 0 < floored < 4
  np.testing.assert_allclose(again, log_prob, rtol=1e-4, atol=1e-4)


@each_step
def test_without_a_floor_it_is_the_sampler(name):
  schedule = diffusion.make_schedule("vp", 4)
  args = (lambda a, t: 0.3 * a + 0.1 * t + 0.2), schedule, (16, 2)
  kwargs = {"temperature": 0.7, "clip": 0.8, "start_scale": 0.5}
  chain, _, _ = run(name, jax.random.key(1), *args, min_std=1e-6, **kwargs)
  if name == "noise_mean":
    sample = diffusion.sample
  else:
    sample = diffusion.sample_posterior
    kwargs["variance"] = STEPS[name].get("posterior_variance", "fixed_small")
  actions = jax.jit(lambda key: sample(key, *args, **kwargs))(jax.random.key(1))
  # The last step's noise: five times the floor.
  np.testing.assert_allclose(jnp.clip(chain[0], -0.8, 0.8), actions, atol=1e-5)


def test_the_floor_is_the_standard_deviation_of_the_last_step():
  size, schedule = 20_000, diffusion.make_schedule("vp", 3)
  chain, _, _ = run(
    "noise_mean",
    jax.random.key(2),
    lambda action, step: jnp.zeros_like(action),
    schedule,
    (size, 1),
    clip=None,
  )
  # Without a prediction the last step's mean is a_0 / sqrt(alpha_0).
  noise = np.asarray(chain[0] - chain[1] / np.sqrt(schedule.alphas[0]))
  # Five standard errors.
  assert np.std(noise) == pytest.approx(0.1, rel=5 / np.sqrt(2 * size))
  assert np.mean(noise) == pytest.approx(0, abs=0.5 / np.sqrt(size))


@pytest.mark.parametrize("name", ["noise_mean", "posterior"])
def test_gradients_of_a_linear_denoiser(name):
  # eps = theta a in one dimension, unclipped: both means are
  # (1 - c theta) a / sqrt(alpha) with c = beta / sqrt(1 - alpha_bar).
  schedule, theta, size = diffusion.make_schedule("vp", 3), 0.6, 400_000
  alpha_bars = closed_forms.alpha_bars_of(schedule)

  def step_of(theta, t):
    """The slope of step t's mean, and its deviation."""
    slope, std = closed_forms.reverse_step(alpha_bars, t, theta, 1.0, name)
    return slope, max(std, 0.1)

  def expected_reward(theta):
    # Of the reward -(a - 0.5)^2: the action is normal.
    variance = 1.0
    for t in reversed(range(3)):
      slope, std = step_of(theta, t)
      variance = slope**2 * variance + std**2
    return -(variance + 0.5**2)

  @jax.jit
  def differentiate(key, theta):
    kwargs = {**STEPS[name], "clip": None}

    def denoiser(theta):
      return lambda action, step: theta * action

    def sample(theta):
      return diffusion.sample_chain(
        key, denoiser(theta), schedule, (size, 1), **kwargs
      )

    # What is sampled is held constant, log-probabilities too.
    (chain, _), (_, of_sampled) = jax.jvp(sample, (theta,), (1.0,))
    reward = -((chain[0, :, 0] - 0.5) ** 2)

    def log_prob_and_loss(theta):
      log_prob = diffusion.chain_log_prob(
        denoiser(theta), schedule, chain, **kwargs
      )
      loss = losses.diffusion_policy_gradient_loss(
        log_prob, reward - jnp.mean(reward)
      )
      return log_prob, loss

    # One derivative per example, forwards: theta is a number.
    _, gradients = jax.jvp(log_prob_and_loss, (theta,), (1.0,))
    return chain, of_sampled, *gradients

  chain, of_sampled, of_log_prob, of_loss = differentiate(
    jax.random.key(5), theta
  )
  assert not np.any(of_sampled)
  samples = np.asarray(chain, np.float64)[..., 0]
  for t in range(3):
    mean_slope, std = step_of(theta, t)
    per_theta = step_of(theta + 1, t)[0] - mean_slope
    entered, drawn = samples[t + 1, :100], samples[t, :100]
    expected = (drawn - mean_slope * entered) / std**2 * per_theta * entered
    np.testing.assert_allclose(
      of_log_prob[:100, t], expected, rtol=1e-3, atol=1e-3
    )
  # Psenka et al. (2024), eq. 9: the loss's gradient is the expected reward's,
  # here by differences. Five standard errors of the mean.
  exact = (expected_reward(theta + 1e-5) - expected_reward(theta - 1e-5)) / 2e-5
  error = float(np.std(of_loss)) / np.sqrt(size)
  assert -np.mean(of_loss) == pytest.approx(exact, abs=5 * error)
  assert abs(exact) > 10 * error


def test_the_chain_is_a_constant():
  schedule = diffusion.make_schedule("vp", 3)
  gradient = jax.jit(
    jax.grad(
      lambda chain: jnp.sum(
        diffusion.chain_log_prob(exploding_denoiser, schedule, chain)
      )
    )
  )(jnp.ones((4, 4, 2)))
  np.testing.assert_array_equal(gradient, 0.0)


def test_policy_gradient_losses_on_paper():
  log_prob = jnp.asarray([[-1.0, 2.0, 0.5], [0.3, -0.2, -4.0]])
  advantage = jnp.asarray([2.0, -0.5])
  loss = losses.diffusion_policy_gradient_loss
  np.testing.assert_allclose(
    loss(log_prob, advantage), [-3.0, -1.95], rtol=1e-6
  )
  gradients = jax.grad(lambda *args: jnp.sum(loss(*args)), argnums=(0, 1))(
    log_prob, advantage
  )
  np.testing.assert_allclose(gradients[0], [[-2.0] * 3, [0.5] * 3], rtol=1e-6)
  np.testing.assert_array_equal(gradients[1], 0.0)
  for args in ((log_prob[0], advantage), (log_prob, advantage[:1])):
    with pytest.raises(AssertionError):
      loss(*args)


def test_arguments_out_of_range_are_named():
  schedule, chain = diffusion.make_schedule("vp", 2), jnp.zeros((3, 1, 1))
  for kwargs, name in (
    ({"min_std": 0.0}, "min_std"),
    ({"clip": -1.0}, "clip"),
    ({"temperature": -1.0}, "temperature"),
    ({"sampler": "ddim"}, "'ddim'"),
  ):
    for use in (
      lambda **kwargs: diffusion.sample_chain(
        jax.random.key(0), exploding_denoiser, schedule, (1, 1), **kwargs
      ),
      lambda **kwargs: diffusion.chain_log_prob(
        exploding_denoiser, schedule, chain, **kwargs
      ),
    ):
      with pytest.raises(ValueError, match=name):
        use(**kwargs)
  with pytest.raises(AssertionError):
    diffusion.chain_log_prob(exploding_denoiser, schedule, chain[:2])
