"""The samplers of the reverse process, against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_qsm import diffusion
from tests.core import closed_forms

SAMPLERS = {
  "noise_mean": diffusion.sample,
  "posterior": diffusion.sample_posterior,
  "fixed_large": functools.partial(
    diffusion.sample_posterior, variance="fixed_large"
  ),
}


def linear_denoiser(action, step):
  return 0.3 * action + 0.1 * step + 0.2


def draw(name, key, denoise_fn, schedule, shape, **kwargs):
  """Samples, compiled as a whole."""
  return np.asarray(
    jax.jit(
      lambda key: SAMPLERS[name](key, denoise_fn, schedule, shape, **kwargs)
    )(key),
    np.float64,
  )


def record(name, key, denoise_fn, *args, **kwargs):
  """What entered the denoiser, the noisiest first, and the result: [T + 1]."""
  entered = []

  def denoise(action, step):
    jax.debug.callback(
      lambda a, t: entered.append((int(t), np.array(a, np.float64))),
      action,
      step,
      ordered=True,
    )
    return denoise_fn(action, step)

  drawn = draw(name, key, denoise, *args, **kwargs)
  jax.effects_barrier()
  steps, actions = zip(*entered, strict=True)
  assert list(steps) == list(range(len(steps)))[::-1]
  return [*actions, drawn]


# The last has more denoising steps than the sampler unrolls.
@pytest.mark.parametrize(
  ("num_steps", "clip"), [(1, None), (7, 0.4), (40, 0.8)]
)
@pytest.mark.parametrize("name", ["noise_mean", "posterior"])
def test_without_noise_it_is_a_numpy_loop(name, num_steps, clip):
  schedule = diffusion.make_schedule("vp", num_steps)
  offset = np.linspace(-1.0, 1.0, 8).reshape(4, 2).astype(np.float32)

  def denoise(action, step):
    return 0.3 * action + 0.01 * step + offset

  result = draw(
    name,
    jax.random.key(0),
    denoise,
    schedule,
    (4, 2),
    temperature=0.0,
    clip=clip,
    start_scale=0.0,
  )
  expected = closed_forms.reverse_process(
    closed_forms.alpha_bars_of(schedule), denoise, np.zeros((4, 2)), name, clip
  )
  np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)
  assert np.ptp(result) > 0.1


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_step_s_noise_is_of_its_variance_times_temperature_squared(name):
  schedule, size = diffusion.make_schedule("vp", 4), 20_000
  trajectory = record(
    name,
    jax.random.key(2),
    linear_denoiser,
    schedule,
    (size, 1),
    temperature=0.5,
    clip=None,
  )
  alpha_bars = closed_forms.alpha_bars_of(schedule)
  draws = [trajectory[0]]
  for t in reversed(range(4)):
    action, after = trajectory[3 - t : 5 - t]
    mean, std = closed_forms.reverse_step(
      alpha_bars, t, linear_denoiser(action, t), action, name
    )
    draws.append((after - mean) / (0.5 * std if t else 1.0))
  # The last step has no noise, the start N(0, I) whatever the temperature; all
  # are independent. Five standard errors; float32's rounding is far below.
  np.testing.assert_allclose(draws.pop(), 0.0, atol=1e-4)
  draws = np.concatenate(draws, axis=1).T
  np.testing.assert_allclose(draws.mean(axis=1), 0, atol=5 / np.sqrt(size))
  np.testing.assert_allclose(draws.var(axis=1), 1, atol=5 * np.sqrt(2 / size))
  np.testing.assert_allclose(
    np.corrcoef(draws), np.eye(4), atol=5 / np.sqrt(size)
  )


def test_the_noise_mean_clips_every_sample_but_the_start():
  schedule = diffusion.make_schedule("vp", 6)

  def explode(action, step):
    return -100.0 * action

  args = jax.random.key(5), explode, schedule, (64, 2)
  start, *others = record("noise_mean", *args, clip=0.25)
  assert np.abs(start).max() > 1.5
  assert np.abs(others).max() <= 0.25
  # The clip is what held it.
  assert np.abs(draw("noise_mean", *args, clip=None)).max() > 1e3


def test_the_posterior_clips_estimates_and_holds_what_would_explode():
  # A denoiser that saturates: what it misses grows by 1 / sqrt(alpha_t) each
  # step, 1 / sqrt(alpha_bar) = 1 000 in all.
  schedule = diffusion.make_schedule(
    "linear", 10, beta_start=0.001, beta_end=0.999
  )
  args = jax.random.key(5), lambda action, step: jnp.tanh(action), schedule
  *entered, actions = record("posterior", *args, (64, 2), clip=0.1)
  assert np.abs(actions).max() <= np.float32(0.1)
  assert np.std(actions) > 0.01
  # Samples on the way are not clipped.
  assert np.abs(entered[1:]).max() > 0.5
  assert np.abs(draw("posterior", *args, (64, 2), clip=None)).max() > 100


@pytest.mark.parametrize(
  ("num_steps", "deviation", "small", "large"),
  [
    (10, 0.1, 0.129, 0.372),
    (10, 0.3, 0.422, 1.005),
    (10, 0.5, 0.531, 1.036),
    (40, 0.3, 0.731, 1.075),
  ],
)
def test_how_wide_a_gaussian_is_drawn(num_steps, deviation, small, large):
  # By the small variance too narrowly, as the posterior is of one clean action.
  # A policy that learned nothing but its own samples would shrink.
  alpha_bars = closed_forms.vp_alpha_bars(num_steps)
  for name, share in (("posterior", small), ("fixed_large", large)):
    _, variance = closed_forms.moments_drawn(alpha_bars, 0.0, deviation, name)
    assert variance == pytest.approx(share * deviation**2, rel=2e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_gaussian_with_the_exact_noise_prediction(name):
  mean, deviation, size = 0.5, 0.3, 50_000
  schedule = diffusion.make_schedule("vp", 10)
  drawn = draw(
    name,
    jax.random.key(4),
    lambda action, step: closed_forms.gaussian_noise(
      schedule.alpha_bars[step], mean, deviation, action
    ),
    schedule,
    (size, 1),
    clip=None,
  )
  expected, variance = closed_forms.moments_drawn(
    closed_forms.vp_alpha_bars(10), mean, deviation, name
  )
  # Five standard errors of a normal's moments.
  assert np.mean(drawn) == pytest.approx(
    expected, abs=5 * np.sqrt(variance / size)
  )
  assert np.var(drawn) == pytest.approx(variance, rel=5 * np.sqrt(2 / size))
  # By many steps it is the Gaussian itself that is drawn.
  many = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1_000))
  expected, variance = closed_forms.moments_drawn(many, mean, deviation, name)
  assert expected == pytest.approx(mean, abs=0.01 * deviation)
  assert np.sqrt(variance) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("name", ["posterior", "fixed_large"])
def test_how_wide_policies_on_the_box_are_drawn(name):
  # exp(3 a) and exp(-8 (a - 0.3)^2), with exact denoisers: by the small
  # variance, two thirds of the deviation; by the large one, what it is, at a
  # mean that is nearer to 0.
  size, schedule = 40_000, diffusion.make_schedule("vp", 10)
  grid, noisy = jnp.linspace(-1, 1, 401), jnp.linspace(-6, 6, 801)

  @jax.jit
  def sample(slope, curvature):
    def denoise(action, step):
      alpha_bar = schedule.alpha_bars[step]
      noise = noisy[:, None] - jnp.sqrt(alpha_bar) * grid
      noise = noise / jnp.sqrt(1 - alpha_bar)
      log_density = slope * grid - curvature * grid**2
      weight = jax.nn.softmax(log_density - noise**2 / 2)
      return jnp.interp(action, noisy, jnp.sum(weight * noise, axis=1))

    return SAMPLERS[name](jax.random.key(0), denoise, schedule, (size, 1))

  for slope, curvature, small, large in (
    (3.0, 0.0, 0.205, 0.324),
    (4.8, 8.0, 0.152, 0.237),
  ):

    def log_density(action, slope=slope, curvature=curvature):
      return slope * action - curvature * action**2

    mean, deviation = closed_forms.moments_on_box(log_density)
    expected = closed_forms.draw_on_box(
      log_density, closed_forms.vp_alpha_bars(10), size, name
    )
    seen = small if name == "posterior" else large
    assert np.std(expected) == pytest.approx(seen, abs=0.004)
    assert (abs(seen / deviation - 1) < 0.05) == (name == "fixed_large")
    assert np.mean(expected) == pytest.approx(mean, abs=0.06)
    drawn = np.asarray(sample(slope, curvature))
    # Five standard errors of the difference of two such samples.
    error = 5 * np.std(expected) * np.sqrt(2 / size)
    assert np.mean(drawn) == pytest.approx(np.mean(expected), abs=error)
    assert np.std(drawn) == pytest.approx(np.std(expected), abs=error)


def sample_langevin(key, temperature):
  return diffusion.sample_langevin(
    key,
    lambda action: -action,
    jnp.full((4,), 0.5),
    (4, 3),
    temperature=temperature,
  )


def sample_of(sampler):
  return lambda key, temperature: sampler(
    key,
    linear_denoiser,
    diffusion.make_schedule("cosine", 3),
    (4, 3),
    temperature=temperature,
  )


@pytest.mark.parametrize(
  "sample",
  [
    sample_of(diffusion.sample),
    sample_of(diffusion.sample_posterior),
    sample_langevin,
    sample_of(diffusion.sample_chain),
  ],
  ids=["noise_mean", "posterior", "langevin", "chain"],
)
def test_compiled_and_over_keys_it_is_the_same(sample):
  keys = jax.random.split(jax.random.key(6), 2)
  together = jax.jit(jax.vmap(sample, in_axes=(0, None)))(keys, 0.5)
  alone = sample(keys[1], 0.5)
  for many, one in zip(
    jax.tree.leaves(together), jax.tree.leaves(alone), strict=True
  ):
    np.testing.assert_allclose(many[1], one, rtol=1e-3, atol=1e-4)
    assert jnp.abs(many[0] - many[1]).max() > 0.1


@pytest.mark.parametrize("name", ["noise_mean", "posterior"])
def test_start_scale_scales_the_start_alone(name):
  # With a denoiser that is linear in the action, so is the result in the start.
  schedule = diffusion.make_schedule("vp", 3)
  zero, one, two = jax.jit(
    jax.vmap(
      lambda scale: SAMPLERS[name](
        jax.random.key(8),
        linear_denoiser,
        schedule,
        (16, 2),
        clip=None,
        start_scale=scale,
      )
    )
  )(jnp.arange(3.0))
  np.testing.assert_allclose(two - one, one - zero, rtol=1e-3, atol=1e-4)
  assert jnp.abs(one - zero).max() > 0.1


@pytest.mark.parametrize(
  "sample",
  [
    *(SAMPLERS[name] for name in ("noise_mean", "posterior")),
    diffusion.sample_chain,
    lambda key, denoise, schedule, *args, **kwargs: diffusion.sample_langevin(
      key, lambda action: denoise(action, 0), schedule.betas, *args, **kwargs
    ),
  ],
  ids=["noise_mean", "posterior", "chain", "langevin"],
)
def test_arguments_out_of_range_are_named(sample):
  args = jax.random.key(0), lambda a, t: a[:1], diffusion.make_schedule("vp", 2)
  for name, value in (
    *(("clip", 0.0), ("clip", -1.0)),
    *(("temperature", -0.5), ("start_scale", -1.0)),
  ):
    with pytest.raises(ValueError, match=rf"{name}.*{value}"):
      sample(*args, (1, 1), **{name: value})
  # Of a denoiser that returns another shape.
  with pytest.raises(AssertionError):
    sample(*args, (4, 2))
