"""The noise-mean sampler, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion


def linear_denoiser(action, step):
  return 0.3 * action + 0.1 * step + 0.2


def record_sample(key, denoise_fn, schedule, shape, **kwargs):
  """Samples; also returns the denoiser's inputs, the noisiest first."""
  inputs = []

  def denoise(action, step):
    jax.debug.callback(
      lambda a, t: inputs.append((np.array(a), int(t))),
      action,
      step,
      ordered=True,
    )
    return denoise_fn(action, step)

  result = diffusion.sample(key, denoise, schedule, shape, **kwargs)
  jax.effects_barrier()
  actions, steps = zip(*inputs, strict=True)
  return np.array(result), np.array(actions), list(steps)


# The last has more denoising steps than the sampler unrolls.
@pytest.mark.parametrize(
  ("num_steps", "clip"), [(1, None), (2, None), (2, 1.0), (7, 0.4), (40, None)]
)
def test_sample_without_noise_is_a_numpy_loop(num_steps, clip):
  schedule = diffusion.make_schedule("vp", num_steps)
  result, actions, steps = record_sample(
    jax.random.key(0),
    linear_denoiser,
    schedule,
    (4, 2),
    temperature=0.0,
    clip=clip,
  )
  assert steps == list(range(num_steps))[::-1]
  action = actions[0].astype(np.float64)
  for t in reversed(range(num_steps)):
    beta = float(schedule.betas[t])
    alpha_bar = np.prod(1.0 - np.asarray(schedule.betas[: t + 1], np.float64))
    noise_prediction = 0.3 * action + 0.1 * t + 0.2
    action = action - beta / np.sqrt(1 - alpha_bar) * noise_prediction
    action = action / np.sqrt(1 - beta)
    if clip is not None:
      action = np.clip(action, -clip, clip)
  np.testing.assert_allclose(result, action, rtol=1e-3, atol=1e-5)


def test_one_step_sample_by_hand():
  # T = 1: a_0 = (a_1 - sqrt(beta) eps) / sqrt(1 - beta), and no noise. Two
  # constant denoisers with one key tell the start and the step's size.
  schedule = diffusion.make_schedule("vp", 1)
  beta = 1 - np.exp(-0.1 - 4.95)

  def sample(value):
    return diffusion.sample(
      jax.random.key(1),
      lambda action, step: jnp.full_like(action, value),
      schedule,
      (50_000, 1),
      clip=None,
    )

  start = sample(0.0) * np.sqrt(1 - beta)
  # Five standard errors of 50 000 standard normal draws.
  assert abs(jnp.mean(start)) < 5 / np.sqrt(50_000)
  assert abs(jnp.var(start) - 1) < 5 * np.sqrt(2 / 50_000)
  np.testing.assert_allclose(
    sample(0.7), (start - np.sqrt(beta) * 0.7) / np.sqrt(1 - beta), atol=1e-4
  )


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sample_adds_noise_of_variance_beta_times_temperature_squared(
  temperature,
):
  schedule = diffusion.make_schedule("vp", 4)
  size = 20_000
  result, actions, _ = record_sample(
    jax.random.key(2),
    linear_denoiser,
    schedule,
    (size, 1),
    temperature=temperature,
    clip=None,
  )
  betas, _, alpha_bars = (np.asarray(x, np.float64) for x in schedule)
  trajectory = [*actions, result]
  noises = []
  for i, t in enumerate(reversed(range(4))):
    mean = trajectory[i] - betas[t] / np.sqrt(1 - alpha_bars[t]) * (
      0.3 * trajectory[i] + 0.1 * t + 0.2
    )
    mean /= np.sqrt(1 - betas[t])
    noises.append((trajectory[i + 1] - mean)[:, 0] / np.sqrt(betas[t]))
  # The start is N(0, I) whatever the temperature, the last step has no noise;
  # the rest are independent. Five standard errors; the float32 rounding of the
  # trajectory is far below.
  np.testing.assert_allclose(np.abs(noises[-1]).max(), 0.0, atol=1e-5)
  draws = np.stack([actions[0][:, 0], *noises[:-1]])
  scales = np.array([1.0] + 3 * [temperature])
  np.testing.assert_allclose(
    draws.mean(axis=1) / scales, 0, atol=5 / np.sqrt(size)
  )
  np.testing.assert_allclose(
    draws.var(axis=1) / scales**2, 1, atol=5 * np.sqrt(2 / size)
  )
  np.testing.assert_allclose(
    np.corrcoef(draws), np.eye(4), atol=5 / np.sqrt(size)
  )


def test_sample_takes_a_traced_temperature():
  schedule = diffusion.make_schedule("vp", 3)

  def sample(temperature):
    return diffusion.sample(
      jax.random.key(3),
      linear_denoiser,
      schedule,
      (4, 2),
      temperature=temperature,
    )

  np.testing.assert_allclose(
    jax.jit(sample)(jnp.float32(0.5)), sample(0.5), rtol=1e-5, atol=1e-6
  )


def test_sample_of_a_gaussian_with_the_exact_noise_prediction():
  # Data N(m, s^2): a_t ~ N(sqrt(abar) m, abar s^2 + 1 - abar), whose score
  # times -sqrt(1 - abar) is eps. 1000 linear steps leave next to nothing of
  # the data (abar 4e-5) and make discretisation errors of about beta / 2.
  mean, scale, size = 0.5, 0.2, 8192
  schedule = diffusion.make_schedule("linear", 1000)

  def denoise(action, step):
    alpha_bar = schedule.alpha_bars[step]
    variance = alpha_bar * scale**2 + 1 - alpha_bar
    return (
      jnp.sqrt(1 - alpha_bar) * (action - jnp.sqrt(alpha_bar) * mean) / variance
    )

  actions = diffusion.sample(
    jax.random.key(4), denoise, schedule, (size, 1), clip=None
  )
  # Five standard errors, plus 1% of the scale for the discretisation.
  np.testing.assert_allclose(
    jnp.mean(actions), mean, atol=5 * scale / np.sqrt(size) + 0.01 * scale
  )
  np.testing.assert_allclose(
    jnp.std(actions), scale, atol=5 * scale / np.sqrt(2 * size) + 0.01 * scale
  )
  # A Gaussian's fourth moment: 3 +- 5 standard errors (sqrt(24 / size)).
  kurtosis = jnp.mean((actions - mean) ** 4) / jnp.var(actions) ** 2
  np.testing.assert_allclose(kurtosis, 3.0, atol=5 * np.sqrt(24 / size))


@pytest.mark.parametrize("clip", [1.0, 0.25])
def test_every_intermediate_sample_is_clipped(clip):
  schedule = diffusion.make_schedule("vp", 6)

  def explode(action, step):
    return -100.0 * action

  result, actions, _ = record_sample(
    jax.random.key(5), explode, schedule, (64, 2), clip=clip
  )
  assert np.abs(actions[0]).max() > 1.5  # The start is not clipped.
  assert np.abs(actions[1:]).max() <= clip
  assert np.abs(result).max() <= clip
  # The clip is what held it.
  free = diffusion.sample(
    jax.random.key(5), explode, schedule, (64, 2), clip=None
  )
  assert jnp.abs(free).max() > 1e3


def test_sample_is_the_same_compiled():
  schedule = diffusion.make_schedule("cosine", 5)

  def sample(key):
    return diffusion.sample(key, linear_denoiser, schedule, (4, 3))

  key = jax.random.key(6)
  np.testing.assert_allclose(
    jax.jit(sample)(key), sample(key), rtol=1e-4, atol=1e-5
  )


def test_sample_over_keys_is_a_loop():
  schedule = diffusion.make_schedule("vp", 5)

  def sample(key):
    return diffusion.sample(key, linear_denoiser, schedule, (4, 3))

  keys = jax.random.split(jax.random.key(7), 3)
  together = jax.vmap(sample)(keys)
  one_by_one = jnp.stack([jax.jit(sample)(key) for key in keys])
  np.testing.assert_allclose(together, one_by_one, rtol=1e-5, atol=1e-6)
  assert jnp.abs(together[0] - together[1]).max() > 0.1


@pytest.mark.parametrize("clip", [0.0, -1.0])
def test_clip_must_be_positive(clip):
  with pytest.raises(ValueError, match=f"clip.*{clip}"):
    diffusion.sample(
      jax.random.key(0),
      linear_denoiser,
      diffusion.make_schedule("vp", 2),
      (1, 1),
      clip=clip,
    )


def test_temperature_must_not_be_negative():
  with pytest.raises(ValueError, match=r"temperature.*-0\.5"):
    diffusion.sample(
      jax.random.key(0),
      linear_denoiser,
      diffusion.make_schedule("vp", 2),
      (1, 1),
      temperature=-0.5,
    )


def test_denoiser_must_return_the_samples_shape():
  with pytest.raises(AssertionError):
    diffusion.sample(
      jax.random.key(0),
      lambda action, step: action[:1],
      diffusion.make_schedule("vp", 2),
      (4, 2),
    )


@pytest.mark.parametrize(
  "sampler", [diffusion.sample, diffusion.sample_posterior]
)
def test_start_scale_scales_the_start_alone(sampler):
  # T = 1 adds no noise, and a zero denoiser makes it linear in the start.
  schedule = diffusion.make_schedule("vp", 1)
  one, half = (
    sampler(
      jax.random.key(8),
      lambda action, step: jnp.zeros_like(action),
      schedule,
      (16, 2),
      clip=None,
      start_scale=scale,
    )
    for scale in (1.0, 0.5)
  )
  np.testing.assert_allclose(half, 0.5 * one, rtol=1e-6)


def test_noise_does_not_depend_on_the_start_scale():
  # With a denoiser that is linear in the action, so is the result in the start.
  schedule = diffusion.make_schedule("vp", 3)

  def sample(scale):
    return diffusion.sample(
      jax.random.key(8),
      linear_denoiser,
      schedule,
      (16, 2),
      clip=None,
      start_scale=scale,
    )

  zero, one, two = (np.asarray(sample(scale)) for scale in (0.0, 1.0, 2.0))
  np.testing.assert_allclose(two - one, one - zero, rtol=1e-3, atol=1e-4)


def test_start_scale_must_not_be_negative():
  with pytest.raises(ValueError, match=r"start_scale.*-1\.0"):
    diffusion.sample(
      jax.random.key(0),
      linear_denoiser,
      diffusion.make_schedule("vp", 2),
      (1, 1),
      start_scale=-1.0,
    )
