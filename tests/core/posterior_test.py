"""The posterior sampler and its transition, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion


def linear_denoiser(action, step):
  return 0.3 * action + 0.1 * step + 0.2


def toy_schedule():
  """One that leaves nothing of the action: alpha_bar ends at 6e-11."""
  return diffusion.make_schedule("linear", 20, beta_start=0.001, beta_end=0.999)


def posterior_by_bayes(schedule, noise_prediction, action, t, clip):
  """Gaussian product q(a_t | a_{t-1}) q(a_{t-1} | a_0), in double precision."""
  betas = np.asarray(schedule.betas, np.float64)
  alpha_bars = np.cumprod(1 - betas)
  clean = action - np.sqrt(1 - alpha_bars[t]) * noise_prediction
  clean = clean / np.sqrt(alpha_bars[t])
  if clip is not None:
    clean = np.clip(clean, -clip, clip)
  if t == 0:
    return clean, 0.0
  prior_variance = 1 - alpha_bars[t - 1]
  precision = (1 - betas[t]) / betas[t] + 1 / prior_variance
  mean = np.sqrt(1 - betas[t]) / betas[t] * action
  mean = mean + np.sqrt(alpha_bars[t - 1]) / prior_variance * clean
  return mean / precision, 1 / np.sqrt(precision)


@pytest.mark.parametrize("clip", [None, 0.6])
def test_transition_is_the_forward_process_posterior(clip):
  schedule = diffusion.make_schedule("vp", 5)
  rng = np.random.default_rng(0)
  noise_prediction, action = rng.normal(size=(2, 5, 3)).astype(np.float32)
  mean, std = diffusion.transition(
    schedule,
    noise_prediction,
    action,
    jnp.arange(5),
    name="posterior",
    clip=clip,
  )
  assert mean.shape == (5, 3)
  for t in range(5):
    expected_mean, expected_std = posterior_by_bayes(
      schedule, noise_prediction[t], action[t], t, clip
    )
    # Rounding, times 1 / sqrt(alpha_bar) = 12.5 at most.
    np.testing.assert_allclose(mean[t], expected_mean, atol=2e-5)
    np.testing.assert_allclose(std[t, 0], expected_std, rtol=1e-5)


def test_both_transitions_have_one_mean_where_nothing_is_clipped():
  schedule = diffusion.make_schedule("vp", 5)
  rng = np.random.default_rng(1)
  noise_prediction, action = rng.normal(size=(2, 5, 3)).astype(np.float32)
  (mean_a, std_a), (mean_b, _) = (
    diffusion.transition(
      schedule, noise_prediction, action, jnp.arange(5), name=name, clip=None
    )
    for name in ("noise_mean", "posterior")
  )
  np.testing.assert_allclose(mean_a, mean_b, atol=2e-5)
  betas = np.asarray(schedule.betas)
  np.testing.assert_allclose(std_a[1:, 0], np.sqrt(betas[1:]), rtol=1e-6)
  assert std_a[0, 0] == 0


def test_transition_of_one_step_is_that_of_equal_steps():
  schedule = diffusion.make_schedule("cosine", 5)
  arrays = np.random.default_rng(2).normal(size=(2, 4, 3)).astype(np.float32)
  for name in ("noise_mean", "posterior"):
    one, many = (
      diffusion.transition(schedule, *arrays, step, name=name)
      for step in (jnp.int32(3), jnp.full((4,), 3))
    )
    for a, b in zip(one, many, strict=True):
      np.testing.assert_allclose(np.broadcast_to(a, b.shape), b, rtol=1e-6)


def test_the_large_variance_is_the_forward_step_s():
  schedule = diffusion.make_schedule("vp", 5)
  arrays = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)
  (small_mean, small_std), (mean, std) = (
    diffusion.transition(
      schedule,
      *arrays,
      jnp.arange(5),
      name="posterior",
      posterior_variance=variance,
    )
    for variance in ("fixed_small", "fixed_large")
  )
  np.testing.assert_array_equal(mean, small_mean)
  betas = 1 - np.exp(-0.1 / 5 - 4.95 * (2 * np.arange(1, 6) - 1) / 25)
  np.testing.assert_allclose(std[1:, 0], np.sqrt(betas[1:]), rtol=1e-5)
  assert std[0, 0] == 0
  assert np.all(std[1:] > small_std[1:])


def test_transition_must_be_known():
  zeros = jnp.zeros((1, 1))
  schedule = diffusion.make_schedule("vp", 2)
  with pytest.raises(ValueError, match=r"'ddim'.*'posterior'"):
    diffusion.transition(schedule, zeros, zeros, jnp.int32(0), name="ddim")
  for refuse in (
    lambda: diffusion.transition(
      schedule, zeros, zeros, jnp.int32(0), posterior_variance="learned"
    ),
    lambda: diffusion.sample_posterior(
      jax.random.key(0), linear_denoiser, schedule, (1, 1), variance="learned"
    ),
  ):
    with pytest.raises(ValueError, match=r"'learned'.*'fixed_large'"):
      refuse()


# The last has more denoising steps than the sampler unrolls.
@pytest.mark.parametrize(
  ("num_steps", "clip"), [(1, None), (2, 1.0), (7, 0.4), (40, 0.8)]
)
def test_sample_without_noise_is_a_numpy_loop(num_steps, clip):
  schedule = diffusion.make_schedule("vp", num_steps)
  offset = np.linspace(-1.0, 1.0, 8).reshape(4, 2).astype(np.float32)

  def denoise(action, step):
    return 0.3 * action + 0.1 * step + offset

  result = diffusion.sample_posterior(
    jax.random.key(0),
    denoise,
    schedule,
    (4, 2),
    temperature=0.0,
    clip=clip,
    start_scale=0.0,
  )
  action = np.zeros((4, 2))
  for t in reversed(range(num_steps)):
    action, _ = posterior_by_bayes(
      schedule, denoise(action, t), action, t, clip
    )
  np.testing.assert_allclose(result, action, rtol=1e-3, atol=1e-5)


def test_sample_of_a_gaussian_with_the_exact_noise_prediction():
  # Data N(m, s^2) has a closed-form denoiser. The posterior of a point estimate
  # draws too narrowly by a term that vanishes with beta: 400 steps.
  mean, scale, size = 0.3, 0.2, 8192
  schedule = diffusion.make_schedule("vp", 400)

  def denoise(action, step):
    alpha_bar = schedule.alpha_bars[step]
    variance = alpha_bar * scale**2 + 1 - alpha_bar
    return (
      jnp.sqrt(1 - alpha_bar) * (action - jnp.sqrt(alpha_bar) * mean) / variance
    )

  actions = diffusion.sample_posterior(
    jax.random.key(4), denoise, schedule, (size, 1), clip=None
  )
  # Five standard errors; 2% of the scale for the discretisation, and for the
  # start, which still has sqrt(alpha_bar) = 0.08 of the data in it.
  np.testing.assert_allclose(
    jnp.mean(actions), mean, atol=5 * scale / np.sqrt(size) + 0.02 * scale
  )
  np.testing.assert_allclose(
    jnp.std(actions), scale, atol=5 * scale / np.sqrt(2 * size) + 0.02 * scale
  )


def test_the_clip_bounds_the_estimates_and_holds_what_would_explode():
  # A denoiser that saturates: what it misses grows by 1 / sqrt(alpha_t) each
  # step, 1 / sqrt(alpha_bar) = 1e5 in all.
  def denoise(action, step):
    return jnp.tanh(action)

  def sample(clip):
    return diffusion.sample_posterior(
      jax.random.key(5), denoise, toy_schedule(), (64, 2), clip=clip
    )

  for clip in (1.0, 0.25):
    actions = sample(clip)
    assert jnp.abs(actions).max() <= clip
    assert jnp.std(actions) > 0.1 * clip
  assert jnp.abs(sample(None)).max() > 1e3


def test_samples_on_the_way_are_not_clipped():
  entered = []

  def denoise(action, step):
    jax.debug.callback(lambda a: entered.append(np.abs(a).max()), action)
    return jnp.zeros_like(action)

  diffusion.sample_posterior(
    jax.random.key(6),
    denoise,
    diffusion.make_schedule("vp", 4),
    (64, 2),
    clip=0.1,
  )
  jax.effects_barrier()
  assert len(entered) == 4
  assert max(entered[1:]) > 0.5


def test_sample_compiled_and_over_keys_is_the_same():
  schedule = diffusion.make_schedule("cosine", 5)

  def sample(key):
    return diffusion.sample_posterior(key, linear_denoiser, schedule, (4, 3))

  keys = jax.random.split(jax.random.key(7), 3)
  together = jax.jit(jax.vmap(sample))(keys)
  one_by_one = jnp.stack([sample(key) for key in keys])
  np.testing.assert_allclose(together, one_by_one, rtol=1e-4, atol=1e-5)
  assert jnp.abs(together[0] - together[1]).max() > 0.1


def test_arguments_out_of_range_are_named():
  schedule = diffusion.make_schedule("vp", 2)
  for kwargs in ({"clip": 0.0}, {"temperature": -1.0}, {"start_scale": -1.0}):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
      diffusion.sample_posterior(
        jax.random.key(0), linear_denoiser, schedule, (1, 1), **kwargs
      )


@pytest.mark.parametrize(
  ("num_steps", "deviation", "small", "large"),
  [
    (10, 0.1, 0.129, 0.372),
    (10, 0.3, 0.422, 1.005),
    (10, 0.5, 0.531, 1.036),
    (40, 0.3, 0.731, 1.075),
  ],
)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_how_wide_a_gaussian_is_drawn(
  num_steps, deviation, small, large, variance
):
  # Given the score of N(0, s^2) noised, each step is linear, and the variance
  # drawn is known: by the small variance below s^2, as the posterior is of one
  # clean action. A policy that learned nothing but its own samples would
  # shrink.
  schedule = diffusion.make_schedule("vp", num_steps)
  betas = np.asarray(schedule.betas, np.float64)
  alpha_bars = np.cumprod(1 - betas)
  gains = np.sqrt(1 - alpha_bars) / (1 - alpha_bars * (1 - deviation**2))
  drawn_variance = 1.0
  for t in reversed(range(num_steps)):
    mean, std = posterior_by_bayes(schedule, gains[t], 1.0, t, clip=None)
    if variance == "fixed_large" and t:
      std = np.sqrt(betas[t])
    drawn_variance = mean**2 * drawn_variance + std**2
  drawn = diffusion.sample_posterior(
    jax.random.key(0),
    lambda action, step: jnp.asarray(gains, jnp.float32)[step] * action,
    schedule,
    (50_000, 1),
    clip=None,
    variance=variance,
  )
  # Five standard errors of a normal's variance.
  assert np.var(drawn) == pytest.approx(
    drawn_variance, rel=5 * np.sqrt(2 / 50_000)
  )
  share = small if variance == "fixed_small" else large
  assert drawn_variance == pytest.approx(share * deviation**2, rel=2e-3)


def draw_exactly(log_density, variance, size):
  """Ten steps with the exact denoiser of a density on the box, in numpy.

  Returns the samples, and the density's mean and deviation.
  """
  grid = np.linspace(-1, 1, 801)
  density = np.exp(log_density(grid) - log_density(grid).max())
  u = np.arange(1, 11) / 10
  alpha_bars = np.exp(-(0.1 * u + 9.9 * u**2 / 2))
  rng = np.random.default_rng(0)
  action = rng.normal(size=size)
  for t in reversed(range(10)):
    mean, scale = np.sqrt(alpha_bars[t]) * grid, np.sqrt(1 - alpha_bars[t])
    at = np.linspace(-6, 6, 1_201)
    weight = density * np.exp(-(((at[:, None] - mean) / scale) ** 2) / 2)
    clean = np.interp(action, at, weight @ grid / weight.sum(axis=1))
    before = alpha_bars[t - 1] if t else 1.0
    beta = 1 - alpha_bars[t] / before
    action = (
      beta * np.sqrt(before) * clean + (1 - before) * np.sqrt(1 - beta) * action
    ) / scale**2
    if t:
      small = beta * (1 - before) / scale**2
      deviation = np.sqrt(beta if variance == "fixed_large" else small)
      action += deviation * rng.normal(size=size)
  mean = np.average(grid, weights=density)
  return action, mean, np.sqrt(np.average((grid - mean) ** 2, weights=density))


@pytest.mark.parametrize(
  ("slope", "curvature", "small", "large"),
  [(3.0, 0.0, 0.205, 0.324), (4.8, 8.0, 0.152, 0.237)],
)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_how_wide_policies_on_the_box_are_drawn(
  slope, curvature, small, large, variance
):
  # exp(3 a) and exp(-8 (a - 0.3)^2), with exact denoisers: by the small
  # variance, two thirds of the deviation; by the large one, what it is, at a
  # mean that is nearer to 0.
  def log_density(action):
    return slope * action - curvature * action**2

  size = 40_000
  expected, mean, deviation = draw_exactly(log_density, variance, size)
  seen = small if variance == "fixed_small" else large
  assert np.std(expected) == pytest.approx(seen, abs=0.004)
  assert (abs(seen / deviation - 1) < 0.05) == (variance == "fixed_large")
  assert np.mean(expected) == pytest.approx(mean, abs=0.06)

  grid, noisy = jnp.linspace(-1, 1, 401), jnp.linspace(-6, 6, 801)

  def denoise(action, step):
    alpha_bar = schedule.alpha_bars[step]
    noise = (noisy[:, None] - jnp.sqrt(alpha_bar) * grid) / jnp.sqrt(
      1 - alpha_bar
    )
    weight = jax.nn.softmax(log_density(grid) - noise**2 / 2)
    return jnp.interp(action, noisy, jnp.sum(weight * noise, axis=1))

  schedule = diffusion.make_schedule("vp", 10)
  drawn = diffusion.sample_posterior(
    jax.random.key(0), denoise, schedule, (size, 1), variance=variance
  )
  # Five standard errors of the difference of two such samples.
  error = 5 * np.std(expected) * np.sqrt(2 / size)
  assert np.mean(drawn) == pytest.approx(np.mean(expected), abs=error)
  assert np.std(drawn) == pytest.approx(np.std(expected), abs=error)
