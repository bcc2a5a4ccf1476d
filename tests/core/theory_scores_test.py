"""What the targets and samplers are in theory, with exact densities.

Noised densities are integrated in double precision, and scores are finite
differences of their logarithms: no identity that the library rests on is used.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from acme_qsm import diffusion
from acme_qsm import losses
from tests.core import closed_forms

SCHEDULE = diffusion.make_schedule("vp", 10)
ALPHA_BARS = closed_forms.vp_alpha_bars(10)
# The least, a middling and the noisiest denoising step.
STEPS = (0, 4, 9)


def minimise(loss_fn, shape):
  """Where a loss is least that is quadratic and separable in its argument."""
  gradient_fn = jax.grad(lambda x: jnp.sum(loss_fn(x)))
  at_zero = gradient_fn(jnp.zeros(shape))
  return -at_zero / (gradient_fn(jnp.ones(shape)) - at_zero)


def noised_log_density(log_mass, nodes, noisy, alpha_bar):
  """Logarithms of p_t at noisy [M, A], up to a constant.

  Of a clean density's log masses at nodes [N, A]:

    p_t(a) = sum_n mass_n N(a; sqrt(alpha_bar) node_n, 1 - alpha_bar).
  """
  difference = noisy[:, None] - np.sqrt(alpha_bar) * nodes
  kernel = np.sum(difference**2, axis=-1) / (2 * (1 - alpha_bar))
  return np.asarray(scipy.special.logsumexp(log_mass - kernel, axis=1))


def exact_noise(log_mass, nodes, noisy, step):
  """-sqrt(1 - abar_t) times the score of p_t at noisy [M, A], as [M, A]."""
  alpha_bar = ALPHA_BARS[step]
  shifts = 1e-5 * np.eye(noisy.shape[1])
  score = [
    (
      noised_log_density(log_mass, nodes, noisy + shift, alpha_bar)
      - noised_log_density(log_mass, nodes, noisy - shift, alpha_bar)
    )
    / 2e-5
    for shift in shifts
  ]
  return -np.sqrt(1 - alpha_bar) * np.stack(score, axis=1)


def reverse_sampling_noise(noise, weight):
  """The noise prediction [B, A] that the loss is least at."""
  return minimise(
    lambda e: losses.reverse_sampling_score_matching_loss(e, noise, weight),
    noise[:, 0].shape,
  )


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def estimate(log_density, noisy, num_samples, bound=None):
  """The loss's optimum at noisy [M, A] and each step, and its tolerance.

  Reverse samples are weighed by the density [..., A] -> [...] at the clean
  actions, in the box where that ends there. The tolerance is five standard
  errors: a weighted mean's variance is that of the weighted noises over the
  effective sample size.
  """
  steps = jnp.repeat(jnp.asarray(STEPS), noisy.shape[0])
  noisy = jnp.tile(noisy, (len(STEPS), 1))
  clean, noise = diffusion.reverse_samples(
    jax.random.key(0), SCHEDULE, noisy, steps, num_samples, bound=bound
  )
  temperature = 0.2
  weight = losses.self_normalized_weights(
    temperature * log_density(clean), temperature
  )
  mean = jnp.sum(weight[..., None] * noise, axis=1, keepdims=True)
  variance = jnp.sum(weight[..., None] * (noise - mean) ** 2, axis=1)
  size = losses.effective_sample_size(weight)[:, None]
  found = reverse_sampling_noise(noise, weight)
  return found, 5 * jnp.sqrt(variance / size)


def test_reverse_sampling_finds_the_noised_score_of_a_gaussian():
  # Ma et al. (2025), theorem 3.2, at single noisy actions: N(m, C) noised is
  # N(sqrt(abar) m, abar C + (1 - abar) I).
  mean = np.array([0.4, -0.6])
  covariance = np.array([[0.5, 0.3], [0.3, 0.4]])
  noisy = np.array([[0.0, 0.0], [1.0, -1.0], [-0.8, -1.2]])

  def log_density(clean):
    return -0.5 * jnp.einsum(
      "bki,ij,bkj->bk", clean - mean, np.linalg.inv(covariance), clean - mean
    )

  found, tolerance = estimate(log_density, noisy, 100_000)
  assert tolerance.max() < 0.03
  expected = []
  for alpha_bar in ALPHA_BARS[list(STEPS)]:
    noised = alpha_bar * covariance + (1 - alpha_bar) * np.eye(2)
    score = -np.linalg.solve(noised, (noisy - np.sqrt(alpha_bar) * mean).T).T
    expected.append(-np.sqrt(1 - alpha_bar) * score)
  assert np.all(np.abs(found - np.concatenate(expected)) < tolerance)


def test_reverse_sampling_finds_the_noised_score_on_the_box():
  # The same theorem for a density that ends at the box, by truncated samples:
  # no product and not Gaussian. Noisy actions are inside of it, out of it in
  # one dimension, far out of it in both.
  noisy = np.array([[0.3, -0.5], [1.3, 0.2], [-2.0, 1.6]])

  def log_density(clean, lib=jnp):
    # Without effect on truncated samples; of unbounded ones, what others do.
    x, y = lib.moveaxis(lib.clip(clean, -1.0, 1.0), -1, 0)
    return 2.0 * lib.sin(3.0 * x) * y - 3.0 * x**4 + x

  line, masses = np.polynomial.legendre.leggauss(100)
  nodes = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
  log_mass = np.log(np.outer(masses, masses)).ravel() + log_density(nodes, np)
  expected = np.concatenate(
    [exact_noise(log_mass, nodes, noisy, step) for step in STEPS]
  )
  found, tolerance = estimate(log_density, noisy, 70_000, 1.0)
  assert tolerance.max() < 0.03
  # The draws' distribution function is right to 1e-4.
  assert np.all(np.abs(found - expected) < tolerance + 1e-3)
  # Clipping the clean actions but not their noises is off by far more.
  clipped, _ = estimate(log_density, noisy, 70_000)
  by_step = np.abs(clipped - expected).reshape(len(STEPS), -1).max(axis=1)
  assert np.all(by_step > 0.1)


def test_the_noised_score_is_found_wherever_noisy_actions_are_from():
  # Theorem 3.2 as it is stated: one loss over noisy actions of any density,
  # with weights exp(Q / temperature) and a single reverse sample of each. The
  # optimum among linear denoisers is the exact one, since the density is
  # Gaussian: eps = slope a_t + offset.
  mean, scale, temperature, step = 0.4, 0.6, 0.3, 3
  num_batches, size = 20, 50_000

  def fit(key, is_uniform):
    action_key, key = jax.random.split(key)
    noisy = jnp.where(
      is_uniform,
      jax.random.uniform(action_key, (size, 1), minval=-2, maxval=3),
      1.0 + jax.random.normal(action_key, (size, 1)),
    )
    clean, noise = diffusion.reverse_samples(
      key, SCHEDULE, noisy, jnp.int32(step), 1
    )
    q_value = -temperature * (clean[..., 0] - mean) ** 2 / (2 * scale**2)
    weight = losses.exponential_weights(q_value, temperature)

    def loss(params):
      return jnp.mean(
        losses.reverse_sampling_score_matching_loss(
          params[0] * noisy + params[1], noise, weight
        )
      )

    zeros = jnp.zeros(2)
    return -jnp.linalg.solve(jax.hessian(loss)(zeros), jax.grad(loss)(zeros))

  @jax.jit
  def fit_all(is_uniform):
    keys = jax.random.split(jax.random.key(0), num_batches)
    return jax.lax.map(lambda key: fit(key, is_uniform), keys)

  alpha_bar = ALPHA_BARS[step]
  slope = np.sqrt(1 - alpha_bar) / (alpha_bar * scale**2 + 1 - alpha_bar)
  expected = np.array([slope, -slope * np.sqrt(alpha_bar) * mean])
  for is_uniform in (True, False):
    fits = np.asarray(fit_all(is_uniform))
    # Five standard errors, of the batches' own spread.
    tolerance = 5 * np.std(fits, axis=0) / np.sqrt(num_batches)
    assert np.all(tolerance < 0.02)
    assert np.all(np.abs(np.mean(fits, axis=0) - expected) < tolerance)


def two_modes(action):
  """Logarithm of 0.8 N(1, 0.5^2) + 0.2 N(-1, 0.5^2), up to a constant."""
  return jnp.logaddexp(
    np.log(0.8) - 2.0 * (action - 1.0) ** 2,
    np.log(0.2) - 2.0 * (action + 1.0) ** 2,
  )


def boltzmann(alpha):
  """Makes alpha Q, where Q has two maxima, at -0.7 and 0.7."""
  return lambda action: -4.0 * alpha * (action**2 - 0.49) ** 2


def histogram_distance(samples, log_density):
  """Total variation between samples and a density, over 40 bins."""
  edges = np.linspace(-3, 3, 41)
  points = np.linspace(-3, 3, 4_001)
  density = np.exp(np.asarray(log_density(points), np.float64))
  cumulative = np.concatenate(
    [[0.0], np.cumsum((density[1:] + density[:-1]) / 2)]
  )
  expected = np.diff(np.interp(edges, points, cumulative / cumulative[-1]))
  counts, _ = np.histogram(samples, edges)
  # What lies beyond the bins is as good as nothing of the density.
  share = counts / samples.size
  return (np.abs(share - expected).sum() + 1.0 - share.sum()) / 2


@pytest.mark.parametrize(
  ("log_density", "step_size", "start_scale"),
  [
    (two_modes, 0.04, 1.0),
    (boltzmann(1.0), 0.01, 0.7),
    (boltzmann(5.0), 0.003, 0.7),
  ],
  ids=["mixture", "alpha1", "alpha5"],
)
def test_langevin_dynamics_settles_at_the_density_of_its_score(
  log_density, step_size, start_scale
):
  # The first is the exact score of a density; the others are Psenka et al.
  # (2024), eq. 20: with Psi = alpha grad Q and Sigma_a = sqrt(2) I the actions
  # settle at exp(alpha Q) / Z.
  samples = jax.jit(
    lambda key: diffusion.sample_langevin(
      key,
      jax.vmap(jax.vmap(jax.grad(log_density))),
      jnp.full((384,), step_size),
      (10_000, 1),
      clip=None,
      start_scale=start_scale,
    )
  )(jax.random.key(0))
  samples = np.asarray(samples)[:, 0]
  # Chance alone makes sqrt(40 / (2 pi 10 000)) = 0.025 at most; the rest is
  # for steps that are not infinitely small.
  assert histogram_distance(samples, log_density) < 0.04
  # That tells a density from one twice as steep, or half.
  for factor in (0.5, 2.0):
    wrong = histogram_distance(samples, lambda a, f=factor: f * log_density(a))
    assert wrong > 0.08


def summarise(samples):
  """Weight of the positive mode; mean and deviation of it, and of the other."""
  positive = samples.sum(axis=1) > 0
  moments = [
    (s.mean(), s.std()) for s in (samples[positive], samples[~positive])
  ]
  return np.array([positive.mean(), *moments[0], *moments[1]])


def test_the_reverse_process_of_a_mixture_on_the_papers_schedule():
  # Ma et al. (2025), section 5.1: 0.8 N((3, 3), I) + 0.2 N((-3, -3), I), with
  # the exact noise prediction. With 20 coarse steps the samplers do not draw
  # quite the density, but what this simulation draws.
  alpha_bars = np.cumprod(1 - np.linspace(0.001, 0.999, 20))

  def denoise(action, alpha_bar, lib=np):
    # Each mode is of unit variance at every noise level.
    mode = 3.0 * lib.sqrt(alpha_bar)
    total = lib.sum(action, axis=1, keepdims=True)
    score = mode * lib.tanh(mode * total + np.log(2.0)) - action
    return -lib.sqrt(1.0 - alpha_bar) * score

  rng = np.random.default_rng(0)
  for name, weight in (("noise_mean", 0.826), ("posterior", 0.831)):
    expected = summarise(
      closed_forms.reverse_process(
        alpha_bars,
        lambda action, t: denoise(action, alpha_bars[t]),
        rng.normal(size=(30_000, 2)),
        name,
        rng=rng,
      )
    )
    assert expected[0] == pytest.approx(weight, abs=0.01)
  # The paper's, and the one of the two that differs where estimates are
  # clipped.
  schedule = diffusion.make_schedule(
    "linear", 20, beta_start=0.001, beta_end=0.999
  )
  drawn = jax.jit(
    lambda key: diffusion.sample_posterior(
      key,
      lambda action, step: denoise(action, schedule.alpha_bars[step], jnp),
      schedule,
      (10_000, 2),
      clip=None,
    )
  )(jax.random.key(0))
  # Five standard errors of 10 000 samples, a fifth of which are of one mode.
  np.testing.assert_allclose(
    summarise(np.asarray(drawn, np.float64)), expected, atol=0.05
  )


# Two modes that do not overlap, of a density exp(kappa Q) N(0, I).
MODE, WIDTH, KAPPA = 0.7, 0.1, 2.0


def log_two_modes(action, weight):
  return jnp.logaddexp(
    jnp.log(weight) - 0.5 * ((action - MODE) / WIDTH) ** 2,
    jnp.log(1.0 - weight) - 0.5 * ((action + MODE) / WIDTH) ** 2,
  )


def value(action):
  """Q, by which the modes are of weights 0.8 and 0.2."""
  return (log_two_modes(action, 0.8) + 0.5 * action**2) / KAPPA


CLEAN = np.linspace(-1.3, 1.3, 401)
NOISY = np.linspace(-3.5, 3.5, 141)
# Where noised densities of those modes are.
NEAR = slice(30, 111)


@jax.jit
def clean_action_noise(weight, step, schedule):
  """What the clean actions' target comes to, by quadrature: [M].

  The library's loss with the critic asked at clean actions a_0, its gradient
  damped:

    eps* = sqrt(1 - alpha_bar) (a_t - sqrt(alpha_bar) kappa grad Q(a_0)).

  Its mean is over the a_0 that a_t may have come from, where they are of a
  policy whose modes have the given weight.
  """
  alpha_bar = schedule.alpha_bars[step]
  noisy = jnp.asarray(NOISY, jnp.float32)
  log_mass = log_two_modes(CLEAN, weight)
  gradient = jax.vmap(jax.grad(value))(jnp.asarray(CLEAN, jnp.float32))
  difference = noisy[:, None] - jnp.sqrt(alpha_bar) * CLEAN
  mass = jax.nn.softmax(log_mass - difference**2 / (2 * (1 - alpha_bar)), 1)

  def loss(e):
    each = jax.vmap(
      lambda e, a: losses.boltzmann_score_matching_loss(
        jnp.full((CLEAN.size, 1), e),
        jnp.sqrt(alpha_bar) * gradient[:, None],
        jnp.full((CLEAN.size, 1), a),
        jnp.full((CLEAN.size,), alpha_bar),
        KAPPA,
      )
    )(e, noisy)
    return jnp.sum(mass * each, axis=1)

  return minimise(loss, noisy.shape)


@jax.jit
def reverse_noise(step, schedule):
  """The same of reverse sampling: [M], which no policy enters.

  Quadrature again: noises on a grid, whose normal density joins the exponent.
  """
  num_noises, temperature = 2_001, 0.5
  noise = jnp.linspace(-7.0, 7.0, num_noises)
  noisy = jnp.asarray(NOISY, jnp.float32)
  shape = (noisy.size, num_noises, 1)
  noise = jnp.broadcast_to(noise[:, None], shape)
  clean = diffusion.remove_noise(
    schedule,
    jnp.broadcast_to(noisy[:, None, None], shape),
    noise,
    jnp.broadcast_to(step, noisy.shape),
  )
  energy = KAPPA * value(clean) - 0.5 * clean**2 - 0.5 * noise**2
  weight = losses.self_normalized_weights(
    temperature * energy[..., 0], temperature
  )
  return reverse_sampling_noise(noise, weight)[:, 0]


def test_only_reverse_sampling_tells_the_modes_weights():
  # The clean actions' target is exact where they are of the wanted density. Of
  # a policy with both modes right and their weights wrong it is the score of
  # that policy, so that nothing moves it. Reverse samples are weighed by Q, and
  # give the score of the wanted density.
  for step in STEPS:
    wanted, wrong = (
      exact_noise(
        np.asarray(log_two_modes(CLEAN, weight), np.float64),
        CLEAN[:, None],
        NOISY[NEAR, None],
        step,
      )[:, 0]
      for weight in (0.8, 0.5)
    )
    assert np.abs(wanted - wrong).max() > 0.02
    for found, expected in (
      (clean_action_noise(0.8, step, SCHEDULE), wanted),
      (clean_action_noise(0.5, step, SCHEDULE), wrong),
      (reverse_noise(step, SCHEDULE), wanted),
    ):
      # Single precision, of gradients as large as (1.5 - 0.7) / 0.1^2 = 80.
      np.testing.assert_allclose(found[NEAR], expected, atol=2e-3)


def test_what_is_drawn_has_those_weights():
  # The same through the sampler, of enough steps that it adds little.
  schedule = diffusion.make_schedule("vp", 24)
  spacing = NOISY[1] - NOISY[0]

  @jax.jit
  def draw(table):
    def denoise(action, step):
      place = jnp.clip((action - NOISY[0]) / spacing, 0, NOISY.size - 2)
      below = place.astype(int)
      row, part = table[step], place - below
      return (1 - part) * row[below] + part * row[below + 1]

    return diffusion.sample_posterior(
      jax.random.key(0), denoise, schedule, (10_000, 1)
    )

  for noise_fn, expected in (
    (functools.partial(clean_action_noise, 0.5), 0.5),
    (reverse_noise, 0.8),
  ):
    table = np.stack([noise_fn(step, schedule) for step in range(24)])
    samples = np.asarray(draw(table))
    # Five standard errors are 0.025; the rest is for the steps' size.
    assert np.mean(samples > 0) == pytest.approx(expected, abs=0.03)
    # Where the modes are is right by both.
    assert np.mean(np.abs(samples)) == pytest.approx(MODE, abs=0.03)
