"""Iterated denoising energy matching, against closed forms and quadrature."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import acme_qsm
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm.core import reverse_sampling
from acme_qsm.methods import idem

ALPHA_BARS = np.array([0.94, 0.5, 0.05])


def make_schedule(alpha_bars=ALPHA_BARS):
  """A schedule of these alpha_bars: nothing else is read of it."""
  alpha_bars = jnp.asarray(alpha_bars, jnp.float32)
  return diffusion.NoiseSchedule(alpha_bars, alpha_bars, alpha_bars)


def estimate(energy, noisy_action, sampling, num_samples, seed=0):
  """The target at one noisy action [A] for each noise level: [T, A]."""
  schedule = make_schedule()
  steps = jnp.arange(len(ALPHA_BARS))
  noisy_action = jnp.broadcast_to(
    jnp.asarray(noisy_action, jnp.float32), (len(ALPHA_BARS), len(noisy_action))
  )
  clean, noise = diffusion.reverse_samples(
    jax.random.key(seed),
    schedule,
    noisy_action,
    steps,
    num_samples,
    bound=1.0 if sampling == "truncated" else None,
  )
  if sampling == "clipped":
    clean = jnp.clip(clean, -1.0, 1.0)
  target, _ = idem.noised_energy(
    acme_qsm.IDEMConfig(reverse_sampling=sampling),
    schedule,
    energy,
    reverse_sampling.ReverseSamples(steps, noisy_action, clean, noise),
  )
  return target


def integrate(log_density, noisy, alpha_bar, extend=False):
  """E[noise | noisy] of a density on [-1, 1], by sums in double precision."""
  width = 30.0 if extend else 1.0
  clean = np.linspace(-width, width, 400_001)
  noise = (noisy - np.sqrt(alpha_bar) * clean) / np.sqrt(1 - alpha_bar)
  log_weight = log_density(np.clip(clean, -1, 1)) - noise**2 / 2
  weight = np.exp(log_weight - log_weight.max())
  return np.sum(weight * noise) / np.sum(weight)


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


@pytest.mark.parametrize("noisy", [0.0, 0.4, -0.9, 1.5, -3.0])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_a_flat_energy_on_the_box(noisy, num_samples):
  # All of it is what flows through the faces, which needs no samples: the mean
  # noise of the truncated normal.
  target = estimate(
    lambda action: jnp.zeros(action.shape[:2]),
    np.array([noisy, 0.1]),
    "truncated",
    num_samples,
  )
  for value, alpha_bar in zip(target, ALPHA_BARS, strict=True):
    for entry, where in zip(value, (noisy, 0.1), strict=True):
      low, high = (
        (where + sign * np.sqrt(alpha_bar)) / np.sqrt(1 - alpha_bar)
        for sign in (-1, 1)
      )
      expected = scipy.stats.truncnorm(low, high).mean()
      assert entry == pytest.approx(expected, rel=1e-3, abs=1e-3)
  # Without the faces, it would be 0.
  assert np.abs(target[:, 0]).max() > 0.2 or noisy == 0.0


@pytest.mark.parametrize("noisy", [0.2, 1.2])
@pytest.mark.parametrize("slope", [-2.0, 4.0])
def test_a_steep_energy_on_the_box(noisy, slope):
  def log_density(action):
    return slope * action - 3.0 * action**2

  target = estimate(
    lambda action: log_density(action[..., 0]),
    np.array([noisy]),
    "truncated",
    100_000,
  )
  expected = [integrate(log_density, noisy, each) for each in ALPHA_BARS]
  # The estimate's error grows with the noise by sqrt((1 - abar) / abar).
  np.testing.assert_allclose(target[:, 0], expected, atol=0.03)


@jax.jit
def mean_of_eight(slope, noisy):
  """The mean of 400 targets by eight samples each, of a linear energy: [T]."""
  targets = jax.vmap(
    lambda seed: estimate(
      lambda action: slope * action[..., 0], noisy[None], "truncated", 8, seed
    )
  )(jnp.arange(400))
  return jnp.mean(targets[:, :, 0], axis=0)


@pytest.mark.parametrize("noisy", [-0.8, 0.0, 0.8])
@pytest.mark.parametrize("slope", [-30.0, 10.0])
def test_few_samples_find_the_best_face(noisy, slope):
  # None of eight need lie near it: normalised by them alone, what flows through
  # it would push the action to the other one.
  found = mean_of_eight(slope, jnp.float32(noisy))
  expected = [
    integrate(lambda action: slope * action, noisy, each) for each in ALPHA_BARS
  ]
  # As clean actions, whose range is 2: the bias of so few samples, and what 400
  # means of them vary by.
  scale = np.sqrt((1 - ALPHA_BARS) / ALPHA_BARS)
  assert np.all(scale * np.abs(found - np.array(expected)) < 0.25)


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
  clean = np.linspace(-1, 1, 2_001)
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


@pytest.mark.parametrize("alpha_bar", [0.9999, 0.94, 0.5, 1e-3, 5e-6])
def test_densities_at_the_ends(alpha_bar):
  mean_at_end = np.sqrt(alpha_bar)
  noise_scale = np.sqrt(1 - alpha_bar)
  noisy = np.array(
    [
      sign * (mean_at_end + start * noise_scale)
      for start in (0.0, 3.0, 6.0, 20.0)
      for sign in (-1, 1)
    ]
    + [0.0, 0.05, -0.05]
  ).astype(np.float32)
  found = diffusion.density_at_bounds(
    make_schedule([alpha_bar]), noisy[:, None], jnp.int32(0), 1.0
  )
  mean = noisy.astype(np.float64) / np.sqrt(alpha_bar)
  scale = noise_scale / np.sqrt(alpha_bar)
  # By logarithms in double precision, on the side where digits are.
  size = np.abs(mean)
  low, high = (size - 1) / scale, (size + 1) / scale
  tails = scipy.special.log_ndtr(-low), scipy.special.log_ndtr(-high)
  log_mass = tails[0] + np.log(-np.expm1(tails[1] - tails[0]))
  near, far = (-(end**2) / 2 - np.log(2 * np.pi) / 2 for end in (low, high))
  ends = np.stack(
    [np.where(mean >= 0, far, near), np.where(mean >= 0, near, far)]
  )
  expected = (ends - np.log(scale) - log_mass).T
  np.testing.assert_allclose(found[:, 0], expected, rtol=2e-3, atol=0.02)


def test_the_loss_is_of_the_target(
  make_constant_networks, first_gradient, make_flat_batch
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
  batch = make_flat_batch(size)
  core = acme_qsm.make_learner_core(networks, config)
  after, metrics = jax.jit(core.step)(core.init(jax.random.key(0)), batch)
  alpha_bars = np.exp(
    -(0.1 * np.arange(1, 4) / 3 + 9.9 * (np.arange(1, 4) / 3) ** 2 / 2)
  )
  target = -np.sqrt((1 - alpha_bars) / alpha_bars) * slope / (0.2 * 0.5)
  # Predictions are 0.3, and each step is drawn a third of the time; five
  # standard errors of that.
  gradient = first_gradient(after.policy_opt_state)[:, 0]
  expected = 2 / 3 * (0.3 - target)
  tolerance = 5 * np.sqrt(2 / 9 / size) * 2 * np.abs(0.3 - target)
  assert np.all(np.abs(gradient - expected) < tolerance)
  rms = np.sqrt(np.mean(target**2))
  assert float(metrics["target_size"]) == pytest.approx(rms, rel=0.05)


def test_the_noise_of_an_energy():
  rng = np.random.default_rng(0)
  gradient = rng.normal(size=(4, 3, 2)).astype(np.float32)
  weight = rng.dirichlet([1.0] * 3, size=4).astype(np.float32)
  alpha_bar = np.array([0.9, 0.5, 0.2, 0.01], np.float32)
  boundary = rng.normal(size=(4, 2)).astype(np.float32)
  mean = np.einsum("bk,bka->ba", weight, gradient)
  scale = -np.sqrt(1 - alpha_bar) / np.sqrt(alpha_bar)
  np.testing.assert_allclose(
    losses.noised_energy_noise(gradient, weight, alpha_bar),
    scale[:, None] * mean,
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    losses.noised_energy_noise(gradient, weight, alpha_bar, boundary),
    scale[:, None] * (mean - boundary),
    rtol=1e-5,
    atol=1e-6,
  )


def test_weights_that_need_not_sum_to_one_are_refused():
  with pytest.raises(ValueError, match=r"IDEMConfig\.weights must be"):
    acme_qsm.IDEMConfig(weights="exponential")


def test_the_reference_s_preset():
  config = acme_qsm.methods.METHODS["idem"].preset("reference")
  # exp(Q) of rewards times 0.2.
  assert config.boltzmann_temperature * config.reward_scale == 1.0
  assert config.num_reverse_samples == 64
  assert dataclasses.replace(config) == config
