"""Reverse samples, against scipy's normal and truncated normal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from acme_qsm import diffusion
from acme_qsm.diffusion import reverse
from tests.core import closed_forms

# From all of the action to nothing of it, as the toy problem's schedule ends.
ALPHA_BARS = np.asarray([0.9999, 0.94, 0.5, 1e-3, 6e-11], np.float32)
# Where the interval begins on the side of 0, in standard deviations; None: the
# interval lies around 0.
STARTS = [None, 0.0, 3.0, 6.0, 20.0]
NUM_SAMPLES = 20_000


def make_schedule(alpha_bars):
  """A schedule of these alpha_bars: nothing else is read of it."""
  alpha_bars = jnp.asarray(alpha_bars, jnp.float32)
  return diffusion.NoiseSchedule(alpha_bars, alpha_bars, alpha_bars)


@functools.partial(jax.jit, static_argnames=("num_samples", "bound"))
def draw(key, schedule, noisy_action, steps, *, num_samples, bound=None):
  return diffusion.reverse_samples(
    key, schedule, noisy_action, steps, num_samples, bound=bound
  )


def truncnorm(noisy_action, alpha_bar, bound):
  """The clean action's distribution, in double precision."""
  mean = noisy_action / np.sqrt(alpha_bar)
  scale = np.sqrt((1 - alpha_bar) / alpha_bar)
  return scipy.stats.truncnorm(
    (-bound - mean) / scale, (bound - mean) / scale, loc=mean, scale=scale
  )


def make_cases(bound):
  """(alpha_bar's index, noisy action) of all cases, on both sides."""
  cases = []
  for i, alpha_bar in enumerate(ALPHA_BARS.astype(np.float64)):
    for start in STARTS:
      noisy = 0.05
      if start is not None:
        noisy = bound * np.sqrt(alpha_bar) + start * np.sqrt(1 - alpha_bar)
      cases += [(i, np.float32(noisy)), (i, np.float32(-noisy))]
  return cases


draw_truncated = jax.jit(reverse._draw_truncated)


def test_a_draw_of_zero_is_no_atom_at_the_far_end():
  # The least draw above 0 is at -5.2, and what stands for 0 is next to it.
  uniform = jnp.array([[[0.0], [2.0**-23]]])
  offset = draw_truncated(
    uniform, jnp.full((1, 1, 1), -50.0), jnp.full((1, 1, 1), 100.0)
  )
  zero, least = np.asarray(offset)[0, :, 0] - 50.0
  assert least == pytest.approx(scipy.special.ndtri(2.0**-23), abs=0.05)
  assert zero == pytest.approx(scipy.special.ndtri(2.0**-24), abs=0.05)


@pytest.mark.parametrize("bound", [1.0, 0.3])
def test_truncated_draws_follow_scipys_truncnorm(bound):
  cases = make_cases(bound)
  step, noisy = (np.asarray(column) for column in zip(*cases, strict=True))
  clean, noise = np.asarray(
    draw(
      jax.random.key(0),
      make_schedule(ALPHA_BARS),
      jnp.asarray(noisy)[:, None],
      jnp.asarray(step),
      num_samples=NUM_SAMPLES,
      bound=bound,
    )
  )[..., 0]
  assert np.isfinite(noise).all()
  # Exactly: the critic is never asked outside of the box.
  assert np.abs(clean).max() <= np.float32(bound)
  for draws, noises, (i, noisy) in zip(clean, noise, cases, strict=True):
    alpha_bar = float(ALPHA_BARS[i])
    expected = truncnorm(float(noisy), alpha_bar, bound)
    statistic = scipy.stats.kstest(
      draws.astype(np.float64), expected.cdf
    ).statistic
    # A right sample exceeds it with a probability of 2 exp(-2 * 2.5^2) = 7e-6,
    # in 100 cases with 7e-4.
    assert statistic < 2.5 / np.sqrt(NUM_SAMPLES), (i, noisy)
    total = np.sqrt(alpha_bar) * draws + np.sqrt(1 - alpha_bar) * noises
    np.testing.assert_allclose(total, noisy, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("low", [-30, -3, 0, 2, 4.99, 5.01, 6, 20, 300])
@pytest.mark.parametrize("width", [1e-5, 0.019, 0.021, 0.5, 3, 60])
def test_inverse_of_the_distribution_function(low, width):
  # Without chance: the uniforms come back through scipy's distribution
  # function, in every branch and on both sides of where they meet.
  low, width = np.float32(max(low, -width / 2)), np.float32(width)
  uniform = np.arange(512, dtype=np.float32) / 512
  offset = draw_truncated(
    jnp.asarray(uniform)[None, :, None],
    jnp.full((1, 1, 1), low),
    jnp.full((1, 1, 1), width),
  )
  offset = np.asarray(offset, np.float64)[0, :, 0]
  low, width = float(low), float(width)
  if low < 0:
    below, above = scipy.special.ndtr([low, low + width])
    got = (scipy.special.ndtr(low + offset) - below) / (above - below)
  else:
    log_tail = scipy.special.log_ndtr(-low)
    got = np.expm1(scipy.special.log_ndtr(-low - offset) - log_tail)
    got /= np.expm1(scipy.special.log_ndtr(-low - width) - log_tail)
  np.testing.assert_allclose(got, uniform, atol=1e-4)


def test_no_bound_leaves_the_noise_normal():
  schedule = diffusion.make_schedule("vp", 5)
  noisy, steps = jnp.asarray([[0.3], [-2.0]]), jnp.asarray([0, 4])
  clean, noise = draw(
    jax.random.key(1), schedule, noisy, steps, num_samples=NUM_SAMPLES
  )
  assert clean.shape == noise.shape == (2, NUM_SAMPLES, 1)
  assert clean.dtype == noise.dtype == jnp.float32
  assert jnp.abs(clean).max() > 5
  for i in range(2):
    statistic = scipy.stats.kstest(noise[i, :, 0], "norm").statistic
    assert statistic < 2.5 / np.sqrt(NUM_SAMPLES)  # As above.
    alpha_bar = float(schedule.alpha_bars[steps[i]])
    total = np.sqrt(alpha_bar) * clean[i] + np.sqrt(1 - alpha_bar) * noise[i]
    np.testing.assert_allclose(total, np.full_like(total, noisy[i]), atol=1e-5)


@pytest.mark.parametrize("bound", [None, 1.0])
def test_draws_of_examples_samples_and_dimensions_are_independent(bound):
  _, noise = draw(
    jax.random.key(2),
    make_schedule([0.5]),
    jnp.zeros((4, 3)),
    jnp.int32(0),
    num_samples=5_000,
    bound=bound,
  )
  draws = np.asarray(noise).transpose(0, 2, 1).reshape(12, 5_000)
  # Five standard errors.
  np.testing.assert_allclose(
    np.corrcoef(draws), np.eye(12), atol=5 / np.sqrt(5_000)
  )


@pytest.mark.parametrize(
  "schedule",
  [
    diffusion.make_schedule("vp", 5),
    diffusion.make_schedule("linear", 20, beta_start=0.001, beta_end=0.999),
    diffusion.make_schedule("linear", 20, beta_start=1e-7, beta_end=0.5),
    make_schedule([1 - 6e-8, 1 - 1e-6, 0.5, 1e-12, 1.2e-38]),
  ],
)
def test_extremes_are_finite_and_bounded(schedule):
  sizes = jnp.asarray([0.0, 1e-30, 0.5, 1.0, 1.5, 6.0, 1e4])
  steps = jnp.tile(jnp.arange(schedule.num_steps), sizes.size)
  noisy = jnp.repeat(sizes, schedule.num_steps)[:, None]
  clean, noise = draw(
    jax.random.key(3),
    schedule,
    noisy * jnp.asarray([1.0, -1.0]),
    steps,
    num_samples=64,
    bound=1.0,
  )
  assert jnp.isfinite(noise).all()
  assert jnp.abs(clean).max() <= 1.0


@pytest.mark.parametrize("noisy", [0.3, 1.5])
def test_the_mean_noise_is_the_score_of_the_noised_uniform_density(noisy):
  # Equal weights are a flat Q: the policy is uniform on the box. Out of it, the
  # noised density's score is large, which clipped clean actions would not tell.
  alpha_bar = float(np.float32(0.94))
  expected = closed_forms.mean_noise(
    np.zeros_like, np.linspace(-1, 1, 20_001), noisy, alpha_bar
  )
  assert noisy < 1 or expected > 2
  _, noise = draw(
    jax.random.key(4),
    make_schedule([alpha_bar]),
    jnp.full((1, 1), noisy),
    jnp.int32(0),
    num_samples=100_000,
    bound=1.0,
  )
  # Five standard errors.
  assert float(np.mean(noise)) == pytest.approx(
    expected, abs=5 * float(np.std(noise)) / np.sqrt(100_000) + 1e-4
  )


def test_gradients():
  @jax.jit
  def both(noisy):
    return [
      jax.grad(
        lambda noisy, bound=bound: jnp.sum(
          diffusion.reverse_samples(
            jax.random.key(6),
            make_schedule([0.25]),
            noisy,
            jnp.int32(0),
            8,
            bound=bound,
          )[0]
        )
      )(noisy)
      for bound in (None, 1.0)
    ]

  # Eight clean actions, each a_t / sqrt(alpha_bar) less a constant.
  free, bounded = both(jnp.asarray([[0.3, -2.0]]))
  np.testing.assert_allclose(free, [[16.0, 16.0]])
  np.testing.assert_array_equal(bounded, [[0.0, 0.0]])


def test_over_keys_it_is_the_same():
  schedule = diffusion.make_schedule("vp", 5)
  noisy, steps = jnp.full((5, 2), 0.7), jnp.arange(5)

  def sample(key):
    return draw(key, schedule, noisy, steps, num_samples=7, bound=0.5)

  keys = jax.random.split(jax.random.key(7), 2)
  together = jax.vmap(sample)(keys)
  for a, b in zip(together, sample(keys[1]), strict=True):
    np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-4)


def test_arguments_out_of_range_are_named():
  schedule = diffusion.make_schedule("vp", 2)

  def refuse(noisy=(1, 1), step=0, num_samples=4, **kwargs):
    diffusion.reverse_samples(
      jax.random.key(0),
      schedule,
      jnp.zeros(noisy),
      jnp.asarray(step),
      num_samples,
      **kwargs,
    )

  with pytest.raises(ValueError, match=r"num_samples.*0"):
    refuse(num_samples=0)
  for bound in (0.0, -1.0):
    with pytest.raises(ValueError, match=f"bound.*{bound}"):
      refuse(bound=bound)
  with pytest.raises(AssertionError):
    refuse(noisy=(3,))
  with pytest.raises(AssertionError):
    refuse(step=0.0)
