"""Iterated denoising energy matching, against closed forms and quadrature."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import acme_qsm
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm.core import reverse_sampling
from acme_qsm.methods import idem
from tests.core import closed_forms

ALPHA_BARS = np.array([0.94, 0.5, 0.05])


def make_schedule(alpha_bars=ALPHA_BARS):
  """A schedule of these alpha_bars: nothing else is read of it."""
  alpha_bars = jnp.asarray(alpha_bars, jnp.float32)
  return diffusion.NoiseSchedule(alpha_bars, alpha_bars, alpha_bars)


def estimate(energy, noisy_action, sampling, num_samples, **kwargs):
  """The target at one noisy action [A] for each noise level: [T, A]."""
  return np.asarray(
    jax.jit(
      lambda noisy: make_targets(energy, noisy, sampling, num_samples, **kwargs)
    )(np.asarray(noisy_action, np.float32))
  )


def make_targets(
  energy, noisy, sampling, num_samples, seed=0, estimator="least_variance"
):
  """As `estimate`, to be compiled."""
  schedule, steps = make_schedule(), jnp.arange(len(ALPHA_BARS))
  noisy = jnp.broadcast_to(noisy, (len(ALPHA_BARS), len(noisy)))
  clean, noise = diffusion.reverse_samples(
    jax.random.key(seed),
    schedule,
    noisy,
    steps,
    num_samples,
    bound=1.0 if sampling == "truncated" else None,
  )
  if sampling == "clipped":
    clean = jnp.clip(clean, -1.0, 1.0)
  target, _, _ = idem.noised_energy(
    acme_qsm.IDEMConfig(reverse_sampling=sampling, estimator=estimator),
    schedule,
    energy,
    reverse_sampling.ReverseSamples(steps, noisy, clean, noise),
  )
  return target


def integrate(log_density, noisy, alpha_bar, extend=False):
  """E[noise | noisy] of a density on [-1, 1], by sums in double precision."""
  width = 30.0 if extend else 1.0
  clean = np.linspace(-width, width, 40_001)
  return closed_forms.mean_noise(
    lambda clean: log_density(np.clip(clean, -1, 1)), clean, noisy, alpha_bar
  )


def test_a_gaussian_energy():
  # N(m, s^2) noised: a_t ~ N(r m, r^2 s^2 + 1 - r^2), r^2 = alpha_bar, whose
  # score is known.
  mean, deviation, noisy = 0.3, 0.5, np.array([0.7])

  def energy(action):
    return -jnp.sum((action - mean) ** 2, axis=-1) / (2 * deviation**2)

  target = estimate(energy, noisy, "unbounded", 200_000)
  variance = ALPHA_BARS * deviation**2 + 1 - ALPHA_BARS
  score = -(noisy - np.sqrt(ALPHA_BARS)[:, None] * mean) / variance[:, None]
  expected = -np.sqrt(1 - ALPHA_BARS)[:, None] * score
  # Five standard errors: of gradients that deviate by up to 2, times
  # sqrt((1 - abar) / abar), of samples a ninth of which count at the noisiest.
  scale = np.sqrt((1 - ALPHA_BARS) / ALPHA_BARS)
  tolerance = 5 * 2 * scale / np.sqrt(200_000 * np.minimum(1, 0.5 / scale))
  assert np.all(np.abs(target - expected)[:, 0] < tolerance)
  assert np.all(tolerance < np.abs(expected[:, 0]))


@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_flat_energy_on_the_box(num_samples):
  # The mean noise of the truncated normal, which needs no samples.
  noisy = np.array([0.0, 0.1, 0.4, -0.9, 1.5, -3.0])
  target = estimate(
    lambda action: jnp.zeros(action.shape[:2]), noisy, "truncated", num_samples
  )
  for values, alpha_bar in zip(target, ALPHA_BARS, strict=True):
    low, high = (
      (noisy + sign * np.sqrt(alpha_bar)) / np.sqrt(1 - alpha_bar)
      for sign in (-1, 1)
    )
    expected = scipy.stats.truncnorm(low, high).mean()
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)
  # By gradients without regard to the box, it would be 0.
  assert np.all(np.abs(target[:, 2:]).max(axis=0) > 0.2)


def test_a_steep_energy_on_the_box():
  for noisy, slope in itertools.product((0.2, 1.2), (-2.0, 4.0)):
    target = steep_energy(np.float32(noisy), np.float32(slope))
    expected = [
      integrate(lambda a, b=slope: b * a - 3.0 * a**2, noisy, alpha_bar)
      for alpha_bar in ALPHA_BARS
    ]
    # The estimate's error grows with the noise by sqrt((1 - abar) / abar).
    np.testing.assert_allclose(target[:, 0], expected, atol=0.03)


@jax.jit
def steep_energy(noisy, slope):
  return make_targets(
    lambda action: slope * action[..., 0] - 3.0 * action[..., 0] ** 2,
    noisy[None],
    "truncated",
    100_000,
  )


@jax.jit
def mean_of_eight(slope, noisy):
  """The mean of 400 targets by eight samples each, of a linear energy: [T]."""
  targets = jax.vmap(
    lambda seed: make_targets(
      lambda action: slope * action[..., 0], noisy[None], "truncated", 8, seed
    )
  )(jnp.arange(400))
  return jnp.mean(targets[:, :, 0], axis=0)


def test_few_samples_find_the_best_face():
  # None of eight need lie near it.
  scale = np.sqrt((1 - ALPHA_BARS) / ALPHA_BARS)
  for noisy, slope in itertools.product((-0.8, 0.0, 0.8), (-30.0, 10.0)):
    found = mean_of_eight(np.float32(slope), np.float32(noisy))
    expected = [
      integrate(lambda action, b=slope: b * action, noisy, each)
      for each in ALPHA_BARS
    ]
    # As clean actions, whose range is 2. Few samples know all of a linear
    # energy.
    assert np.all(scale * np.abs(found - np.array(expected)) < 2e-3)


def test_two_dimensions_on_the_box():
  # A density that is no product: each face depends on where on it one is.
  def log_density(x, y):
    return 2.0 * x * y + x

  noisy = np.array([0.6, -0.8])
  target = estimate(
    lambda action: log_density(action[..., 0], action[..., 1]),
    noisy,
    "truncated",
    100_000,
  )
  clean = np.linspace(-1, 1, 601)
  x, y = np.meshgrid(clean, clean, indexing="ij")
  for value, alpha_bar in zip(target, ALPHA_BARS, strict=True):
    noise = [
      (where - np.sqrt(alpha_bar) * each) / np.sqrt(1 - alpha_bar)
      for where, each in zip(noisy, (x, y), strict=True)
    ]
    weight = np.exp(log_density(x, y) - noise[0] ** 2 / 2 - noise[1] ** 2 / 2)
    expected = [np.sum(weight * each) / np.sum(weight) for each in noise]
    np.testing.assert_allclose(value, expected, atol=0.04)


def test_clipped_samples_are_of_an_energy_that_is_flat_beyond_the_box():
  def log_density(action):
    return 3.0 * action

  target = estimate(
    lambda action: log_density(action[..., 0]), [0.4], "clipped", 200_000
  )
  # The density extended: integrate() clips where it asks for it.
  for value, alpha_bar in zip(target[:2, 0], ALPHA_BARS[:2], strict=True):
    expected = integrate(log_density, 0.4, alpha_bar, extend=True)
    assert value == pytest.approx(expected, abs=0.02)


def test_a_target_on_the_box_is_one_that_the_box_allows():
  # However steep, and wherever.
  noisy = np.array([1.7, -0.3])
  target = estimate(
    lambda action: 1e4 * jnp.sum(action, axis=-1), noisy, "truncated", 2
  )
  for value, alpha_bar in zip(target, ALPHA_BARS, strict=True):
    clean = (noisy - np.sqrt(1 - alpha_bar) * value) / np.sqrt(alpha_bar)
    assert np.all(np.abs(clean) <= 1 + 1e-3)


def integrate_kernel(location, scale, tilt):
  """The Stein kernel of a tilted truncated normal, by its definition.

  In double precision, over the interval where the density is.

  Returns the mean, the deviation, points within four deviations of the mean,
  and the kernel there.
  """
  mode = np.clip(location + scale**2 * tilt, -1, 1)
  slope = abs(tilt + (location - mode) / scale**2)
  reach = 40 / (slope + 1 / scale)
  ends = np.clip([mode - reach, mode + reach], -1, 1)
  points, weights = np.polynomial.legendre.leggauss(400)

  def density(x):  # Relative to that at the mode.
    square = (x - location) ** 2 - (mode - location) ** 2
    return np.exp(tilt * (x - mode) - square / (2 * scale**2))

  def integrate_between(low, high, function):
    x = low + (high - low) * (points + 1) / 2
    return (high - low) / 2 * np.sum(weights * function(x) * density(x))

  mass = integrate_between(*ends, np.ones_like)
  mean = integrate_between(*ends, lambda x: x) / mass
  variance = integrate_between(*ends, lambda x: (x - mean) ** 2) / mass
  deviation = np.sqrt(variance)
  clean = np.clip(mean + deviation * np.linspace(-4, 4, 9), -1, 1)
  clean = clean.astype(np.float32)
  kernel = [
    integrate_between(
      *((where, ends[1]) if where >= mean else (ends[0], where)),
      lambda x: np.abs(x - mean),
    )
    / density(where)
    for where in clean.astype(np.float64)
  ]
  return mean, deviation, clean, np.array(kernel)


stein_kernel = jax.jit(functools.partial(diffusion.stein_kernel, bound=1.0))


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.94, 0.5, 1e-3, 5e-6])
def test_the_stein_kernel_and_the_mean(alpha_bar):
  schedule = make_schedule([alpha_bar])
  alpha_bar = float(schedule.alpha_bars[0])
  scale = np.sqrt((1 - alpha_bar) / alpha_bar)
  for tilt in (0.0, -2.5, 30.0, -1_000.0, 1 / scale**2, -3 / scale):
    for location in (0.0, 0.4, -0.95, 1.3, -1 - 3 * scale):
      noisy = np.float32(location * np.sqrt(alpha_bar))
      mean, deviation, clean, expected = integrate_kernel(
        float(noisy) / np.sqrt(alpha_bar), scale, float(np.float32(tilt))
      )
      kernel, found_mean = stein_kernel(
        schedule,
        np.full((1, 1), noisy),
        np.int32(0),
        clean[None, :, None],
        np.full((1, 1), tilt, np.float32),
      )
      # A float32 near 1 is known to 6e-8.
      assert float(found_mean[0, 0]) == pytest.approx(
        mean, abs=1e-3 * deviation + 2e-7
      )
      np.testing.assert_allclose(
        kernel[0, :, 0], expected, rtol=5e-3, atol=5e-3 * deviation**2
      )


def test_without_a_box_the_kernel_is_the_variance():
  clean = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
  noisy, tilt = np.ones((3, 2), np.float32), np.full((3, 2), 2.0, np.float32)
  kernel, mean = diffusion.stein_kernel(
    make_schedule(), noisy, jnp.arange(3), clean, tilt
  )
  variance = (1 - ALPHA_BARS) / ALPHA_BARS
  for t in range(3):
    np.testing.assert_allclose(kernel[t], variance[t], rtol=1e-5)
    np.testing.assert_allclose(
      mean[t], 1 / np.sqrt(ALPHA_BARS[t]) + variance[t] * 2.0, rtol=1e-5
    )


def test_the_loss_is_of_the_target(
  make_constant_networks, make_step, make_flat_batch
):
  # Linear critics, no box: eps* = -sqrt((1 - abar) / abar) slope / temperature,
  # whatever the noisy action and the samples are.
  config = acme_qsm.IDEMConfig(
    num_denoising_steps=3,
    noise_schedule="vp",
    critic_learning_rate=1e-12,
    noisy_action_source="gaussian",
    reverse_sampling="unbounded",
    boltzmann_temperature=0.5,
    temperature_update="constant",
    num_target_candidates=1,
    reward_scale=0.2,
  )
  slope, size = 0.1, 9_000
  # The second is higher everywhere, so that the first one is asked.
  networks = make_constant_networks([[slope], [slope]], [0.0, 5.0])
  gradient, metrics, _ = make_step(networks, config)(make_flat_batch(size))
  alpha_bars = closed_forms.vp_alpha_bars(3)
  target = -np.sqrt((1 - alpha_bars) / alpha_bars) * slope / (0.2 * 0.5)
  # Predictions are 0.3, and each step is drawn a third of the time; five
  # standard errors of that.
  expected = 2 / 3 * (0.3 - target)
  tolerance = 5 * np.sqrt(2 / 9 / size) * 2 * np.abs(0.3 - target)
  assert np.all(np.abs(gradient[:, 0] - expected) < tolerance)
  rms = np.sqrt(np.mean(target**2))
  assert float(metrics["target_size"]) == pytest.approx(rms, rel=0.05)


# Coefficients of a, a^2 and a^4 of log-densities on the box.
ENERGIES = {
  "flat": (0.0, 0.0, 0.0),
  "30a": (30.0, 0.0, 0.0),
  "-8(a-.3)^2": (4.8, -8.0, 0.0),
  "-8(a^2-.49)^2": (0.0, 7.84, -8.0),
  "a-40(a^2-.49)^2": (1.0, 39.2, -40.0),
}
# Of vp at T = 10: the noisiest step, and steps of less noise.
LEVELS = closed_forms.vp_alpha_bars(10)[[9, 5, 2]]
NOISY = np.array([-1.2, -0.4, 0.0, 0.7])
NUM_SEEDS = 300


@functools.partial(jax.jit, static_argnums=0)
def estimate_all(num_samples, coefficients):
  """Clean actions by noises, gradients and both: [3, seeds, levels, NOISY]."""
  schedule = make_schedule(LEVELS)
  noisy = jnp.tile(jnp.asarray(NOISY, jnp.float32), len(LEVELS))[:, None]
  steps = jnp.repeat(jnp.arange(len(LEVELS)), len(NOISY))

  def energy(action):
    a = action[..., 0]
    return coefficients @ jnp.stack([a, a**2, a**4]).reshape(3, -1)

  def estimate(seed):
    samples = reverse_sampling.ReverseSamples(
      steps,
      noisy,
      *diffusion.reverse_samples(
        jax.random.key(seed), schedule, noisy, steps, num_samples, bound=1.0
      ),
    )
    targets = []
    for estimator in ("gradient", "least_variance"):
      target, weight, _ = idem.noised_energy(
        acme_qsm.IDEMConfig(estimator=estimator),
        schedule,
        lambda a: energy(a).reshape(a.shape[:2]),
        samples,
      )
      targets.append(target)
    by_noises = jnp.einsum("bk,bka->ba", weight, samples.noise)
    noise = jnp.stack([by_noises, *targets])
    alpha_bar = schedule.alpha_bars[steps][:, None]
    clean = (noisy - jnp.sqrt(1 - alpha_bar) * noise) / jnp.sqrt(alpha_bar)
    return clean.reshape(3, len(LEVELS), len(NOISY))

  return jax.lax.map(estimate, jnp.arange(NUM_SEEDS)).swapaxes(0, 1)


def exact_clean_actions(name):
  """E[clean | noisy] by quadrature: [levels, NOISY]."""
  a, b, c = ENERGIES[name]

  def log_density(action):
    return a * action + b * action**2 + c * action**4

  noise = np.array([integrate(log_density, NOISY, level) for level in LEVELS])
  levels = LEVELS[:, None]
  return (NOISY - np.sqrt(1 - levels) * noise) / np.sqrt(levels)


@pytest.mark.parametrize("name", ENERGIES)
def test_the_mixture_is_as_good_as_the_better_of_both(name):
  exact = exact_clean_actions(name)
  biases = {}
  for num_samples in (8, 64, 256):
    found = np.asarray(
      estimate_all(num_samples, jnp.asarray(ENERGIES[name])), np.float64
    )
    error = found - exact
    by_noises, by_gradients, mixed = np.sqrt(
      np.mean(error**2, axis=(1, 3))
    )  # Each of each level.
    # A tenth for what 300 draws leave unknown, and for what is not known of the
    # best share.
    best = np.minimum(by_noises, by_gradients)
    assert np.all(mixed < 1.1 * best + 1e-3), num_samples
    bias = np.mean(error[2], axis=0)
    noise = np.std(found[2], axis=0) / np.sqrt(NUM_SEEDS)
    biases[num_samples] = np.sqrt(np.mean(bias**2)), np.sqrt(np.mean(noise**2))
  if name in ("flat", "30a"):
    # Any linear energy is known from one sample, however steep.
    assert max(bias for bias, _ in biases.values()) < 2e-3
    return
  # A bias of 1 / K, but for what is seen of chance: from 8 to 256, 32 times.
  assert biases[256][0] < biases[8][0] / 8 + 3 * biases[256][1]
  assert biases[256][0] < 0.01
  assert biases[64][0] < biases[8][0]


def test_where_gradients_alone_are_far_noisier_than_the_box():
  # Two modes, much noise: their mean is 0, while single gradients would have
  # the clean action anywhere.
  found = estimate_all(64, jnp.asarray(ENERGIES["a-40(a^2-.49)^2"]))
  exact = exact_clean_actions("a-40(a^2-.49)^2")
  _, by_gradients, mixed = np.sqrt(np.mean((found - exact) ** 2, axis=(1, 3)))
  assert by_gradients[0] > 3 * mixed[0]
  # One mode: noises tell less, four times at the least noisy of the levels.
  found = estimate_all(64, jnp.asarray(ENERGIES["-8(a-.3)^2"]))
  exact = exact_clean_actions("-8(a-.3)^2")
  by_noises, _, mixed = np.sqrt(np.mean((found - exact) ** 2, axis=(1, 3)))
  assert np.all(by_noises > 2 * mixed)


@functools.partial(jax.jit, static_argnames="mix")
def tilted(noisy, step, tilt, mix):
  """A mean by 100 000 samples of exp(-2 a^2 + 1.5 sin(4 a)), and a share."""
  args = make_schedule(), jnp.full((1, 1), noisy), step
  clean, _ = diffusion.reverse_samples(
    jax.random.key(0), *args, 100_000, bound=1.0
  )
  weight = jax.nn.softmax(
    -2.0 * clean[..., 0] ** 2 + 1.5 * jnp.sin(4.0 * clean[..., 0])
  )
  gradient = -4.0 * clean + 6.0 * jnp.cos(4.0 * clean)
  tilt = jnp.full((1, 1), tilt)
  kernel, mean = diffusion.stein_kernel(*args, clean, tilt, bound=1.0)
  found, share = losses.noised_energy_action(
    clean, gradient, weight, tilt, mean, kernel, mix=mix
  )
  return found[0, 0], share[0, 0]


def test_any_tilt_and_any_share_are_right():
  noisy = 0.3
  for level, alpha_bar in enumerate(ALPHA_BARS):
    noise = integrate(
      lambda action: -2.0 * action**2 + 1.5 * np.sin(4.0 * action),
      *(noisy, alpha_bar),
    )
    expected = (noisy - np.sqrt(1 - alpha_bar) * noise) / np.sqrt(alpha_bar)
    for tilt, mix in itertools.product((-3.0, 0.0, 2.0), (False, True)):
      found, share = tilted(noisy, level, tilt, mix)
      # Five standard errors of functions that deviate by up to 2.
      assert float(found) == pytest.approx(expected, abs=5 * 2 / np.sqrt(1e5))
      assert (0 < share < 1) == mix


def test_the_share_of_a_gaussian():
  # Of E = -(a - m)^2 / 2 s^2, without a box, both forms are linear in the
  # action with slopes 1 and -v / s^2, v the variance of reverse samples: at the
  # share s^2 / (s^2 + v) nothing is left of them, with any samples.
  rng = np.random.default_rng(0)
  clean = rng.normal(size=(3, 200_000, 1)).astype(np.float32)
  deviation, variance = 0.7, np.array([0.2, 1.0, 5.0], np.float32)
  gradient = -(clean - 0.4) / deviation**2
  posterior = variance * deviation**2 / (variance + deviation**2)
  location = np.array([0.5, -0.2, 1.0], np.float32)
  # Samples of the posterior itself, of equal weights.
  mean = posterior * (0.4 / deviation**2 + location / variance)
  clean = mean[:, None, None] + np.sqrt(posterior)[:, None, None] * clean
  gradient = -(clean - 0.4) / deviation**2
  weight = np.full(clean.shape[:2], 1 / clean.shape[1], np.float32)
  found, share = losses.noised_energy_action(
    clean,
    gradient,
    weight,
    np.zeros((3, 1), np.float32),
    location[:, None],
    np.broadcast_to(variance[:, None, None], clean.shape),
  )
  np.testing.assert_allclose(
    share[:, 0], deviation**2 / (deviation**2 + variance), rtol=0.02
  )
  np.testing.assert_allclose(found[:, 0], mean, atol=2e-3)


def test_gradients_alone_are_as_published():
  # Without a box, eq. 8: -sqrt((1 - abar) / abar) sum_k w_k grad E_k.
  def energy(action):
    return jnp.sum(jnp.sin(3.0 * action) - action**2, axis=-1)

  noisy = np.array([0.4, -0.3])
  found = estimate(energy, noisy, "unbounded", 5, estimator="gradient")
  steps = jnp.arange(3)
  clean, _ = diffusion.reverse_samples(
    jax.random.key(0),
    make_schedule(),
    jnp.broadcast_to(jnp.asarray(noisy, jnp.float32), (3, 2)),
    steps,
    5,
  )
  clean = np.asarray(clean, np.float64)
  weight = np.exp(np.sum(np.sin(3 * clean) - clean**2, axis=-1))
  weight /= weight.sum(axis=1, keepdims=True)
  mean = np.einsum("bk,bka->ba", weight, 3 * np.cos(3 * clean) - 2 * clean)
  expected = -np.sqrt((1 - ALPHA_BARS) / ALPHA_BARS)[:, None] * mean
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
