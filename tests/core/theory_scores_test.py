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

SCHEDULE = diffusion.make_schedule("vp", 10)
# The least, a middling and the noisiest denoising step.
STEPS = [0, 4, 9]


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
  alpha_bar = float(SCHEDULE.alpha_bars[step])
  noisy = np.asarray(noisy, np.float64)
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


def monte_carlo_tolerance(noise, weight):
  """Five standard errors [B, A] of the weighted mean noise.

  Its variance is that of the weighted noises over the effective sample size.
  """
  weight = np.asarray(weight, np.float64)[..., None]
  mean = np.sum(weight * noise, axis=1, keepdims=True)
  variance = np.sum(weight * (noise - mean) ** 2, axis=1)
  size = losses.effective_sample_size(jnp.asarray(weight[..., 0], jnp.float32))
  return 5 * np.sqrt(variance / np.asarray(size)[:, None])


@pytest.mark.parametrize("step", STEPS)
def test_reverse_sampling_finds_the_noised_score_of_a_gaussian(step):
  # Ma et al. (2025), theorem 3.2, at single noisy actions: N(m, C) noised is
  # N(sqrt(abar) m, abar C + (1 - abar) I).
  mean = np.array([0.4, -0.6])
  covariance = np.array([[0.5, 0.3], [0.3, 0.4]])
  temperature, num_samples = 0.2, 100_000
  noisy = np.array([[0.0, 0.0], [1.0, -1.0], [-0.8, -1.2]])
  clean, noise = diffusion.reverse_samples(
    jax.random.key(step),
    SCHEDULE,
    jnp.asarray(noisy, jnp.float32),
    jnp.int32(step),
    num_samples,
  )
  offset = clean - mean
  q_value = -0.5 * jnp.einsum(
    "bki,ij,bkj->bk", offset, np.linalg.inv(covariance), offset
  )
  weight = losses.self_normalized_weights(temperature * q_value, temperature)
  alpha_bar = float(SCHEDULE.alpha_bars[step])
  noised_covariance = alpha_bar * covariance + (1 - alpha_bar) * np.eye(2)
  score = -np.linalg.solve(
    noised_covariance, (noisy - np.sqrt(alpha_bar) * mean).T
  ).T
  tolerance = monte_carlo_tolerance(noise, weight)
  assert tolerance.max() < 0.03
  np.testing.assert_array_less(
    np.abs(
      reverse_sampling_noise(noise, weight) + np.sqrt(1 - alpha_bar) * score
    ),
    tolerance,
  )


# Inside the box, out of it in one dimension, far out of it in both.
BOX_ACTIONS = np.array([[0.3, -0.5], [1.3, 0.2], [-2.0, 1.6]])


def box_energy(x, y):
  """A logarithmic density on [-1, 1]^2 that is no product and not Gaussian."""
  return 2.0 * np.sin(3.0 * x) * y - 3.0 * x**4 + x


@pytest.mark.parametrize("step", STEPS)
def test_reverse_sampling_finds_the_noised_score_on_the_box(step):
  # The same theorem for a density that ends at the box, by truncated samples.
  temperature, num_samples = 0.5, 70_000
  line, masses = np.polynomial.legendre.leggauss(100)
  nodes = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
  log_mass = np.log(np.outer(masses, masses)).ravel() + box_energy(*nodes.T)
  expected = exact_noise(log_mass, nodes, BOX_ACTIONS, step)

  def estimate(bound):
    clean, noise = diffusion.reverse_samples(
      jax.random.key(step),
      SCHEDULE,
      jnp.asarray(BOX_ACTIONS, jnp.float32),
      jnp.int32(step),
      num_samples,
      bound=bound,
    )
    # Without effect on truncated samples; of unbounded ones, what others do.
    clean = np.clip(np.asarray(clean, np.float64), -1.0, 1.0)
    q_value = temperature * box_energy(clean[..., 0], clean[..., 1])
    weight = losses.self_normalized_weights(
      jnp.asarray(q_value, jnp.float32), temperature
    )
    return reverse_sampling_noise(noise, weight), monte_carlo_tolerance(
      noise, weight
    )

  got, tolerance = estimate(bound=1.0)
  assert tolerance.max() < 0.03
  # The draws' distribution function is right to 1e-4.
  assert np.all(np.abs(got - expected) < tolerance + 1e-3)
  # Clipping the clean actions but not their noises is off by far more.
  clipped, _ = estimate(bound=None)
  assert np.abs(clipped - expected).max() > 0.1


@pytest.mark.parametrize("source", ["uniform", "gaussian"])
def test_the_noised_score_is_found_wherever_noisy_actions_are_from(source):
  # Theorem 3.2 as it is stated: one loss over noisy actions of any density,
  # with weights exp(Q / temperature) and a single reverse sample of each. The
  # optimum among linear denoisers is the exact one, since the density is
  # Gaussian: eps = slope a_t + offset.
  mean, scale, temperature, step = 0.4, 0.6, 0.3, 3
  num_batches, size = 20, 50_000

  def fit(key):
    action_key, key = jax.random.split(key)
    if source == "uniform":
      noisy = jax.random.uniform(action_key, (size, 1), minval=-2, maxval=3)
    else:
      noisy = 1.0 + jax.random.normal(action_key, (size, 1))
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

  fits = jax.lax.map(fit, jax.random.split(jax.random.key(0), num_batches))
  alpha_bar = float(SCHEDULE.alpha_bars[step])
  slope = np.sqrt(1 - alpha_bar) / (alpha_bar * scale**2 + 1 - alpha_bar)
  expected = np.array([slope, -slope * np.sqrt(alpha_bar) * mean])
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
  samples = diffusion.sample_langevin(
    jax.random.key(0),
    jax.vmap(jax.vmap(jax.grad(log_density))),
    jnp.full((400,), step_size),
    (10_000, 1),
    clip=None,
    start_scale=start_scale,
  )
  samples = np.asarray(samples)[:, 0]
  # Chance alone makes sqrt(40 / (2 pi 10 000)) = 0.025 at most; the rest is
  # for steps that are not infinitely small.
  assert histogram_distance(samples, log_density) < 0.04
  # That tells a density from one twice as steep, or half.
  for factor in (0.5, 2.0):
    wrong = histogram_distance(samples, lambda a, f=factor: f * log_density(a))
    assert wrong > 0.08


@pytest.mark.parametrize(
  "sampler",
  [diffusion.sample, diffusion.sample_posterior],
  ids=["noise_mean", "posterior"],
)
def test_the_reverse_process_of_a_mixture_on_the_papers_schedule(sampler):
  # Ma et al. (2025), section 5.1: 0.8 N((3, 3), I) + 0.2 N((-3, -3), I), with
  # the exact noise prediction. With 20 coarse steps the samplers do not draw
  # quite the density, but what this simulation draws.
  betas = np.linspace(0.001, 0.999, 20)
  alpha_bars = np.cumprod(1 - betas)
  rng = np.random.default_rng(0)
  action = rng.normal(size=(30_000, 2))
  for t in reversed(range(20)):
    mode = 3 * np.sqrt(alpha_bars[t])
    total = np.sum(action, axis=1, keepdims=True)
    balance = np.tanh(mode * total + np.log(0.8 / 0.2) / 2)
    mean = (action + betas[t] * (mode * balance - action)) / np.sqrt(
      1 - betas[t]
    )
    variance = betas[t] if t else 0.0
    if sampler is diffusion.sample_posterior and t:
      variance *= (1 - alpha_bars[t - 1]) / (1 - alpha_bars[t])
    action = mean + np.sqrt(variance) * rng.normal(size=mean.shape)
  expected = summarise(action)
  # The weight is known to be drawn as 0.826 and 0.831.
  assert expected[0] == pytest.approx(0.828, abs=0.01)
  schedule = diffusion.make_schedule(
    "linear", 20, beta_start=0.001, beta_end=0.999
  )
  # Five standard errors of 10 000 samples, a fifth of which are of one mode.
  np.testing.assert_allclose(
    sample_mixture(sampler, schedule), expected, atol=0.05
  )


def summarise(samples):
  """Weight of the positive mode; mean and deviation of it, and of the other."""
  positive = samples.sum(axis=1) > 0
  moments = [
    (s.mean(), s.std()) for s in (samples[positive], samples[~positive])
  ]
  return np.array([positive.mean(), *moments[0], *moments[1]])


def sample_mixture(sampler, schedule):
  """Summary of 10 000 samples by the exact noise prediction of the mixture."""

  def denoise(action, step):
    # Each mode is of unit variance at every noise level.
    alpha_bar = schedule.alpha_bars[step]
    mode = 3.0 * jnp.sqrt(alpha_bar)
    total = jnp.sum(action, axis=1, keepdims=True)
    score = mode * jnp.tanh(mode * total + np.log(2.0)) - action
    return -jnp.sqrt(1.0 - alpha_bar) * score

  draw = jax.jit(
    lambda key: sampler(key, denoise, schedule, (10_000, 2), clip=None)
  )
  return summarise(np.asarray(draw(jax.random.key(0)), np.float64))


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
NOISY = np.linspace(-2.0, 2.0, 81)


def exact_noise_of_modes(weight, step):
  log_mass = np.asarray(log_two_modes(CLEAN, weight), np.float64)
  return exact_noise(log_mass, CLEAN[:, None], NOISY[:, None], step)[:, 0]


def clean_action_noise(weight, noisy, step, schedule):
  """What the clean actions' target comes to, by quadrature: [M].

  The library's loss with the critic asked at clean actions a_0, its gradient
  damped:

    eps* = sqrt(1 - alpha_bar) (a_t - sqrt(alpha_bar) kappa grad Q(a_0)).

  Its mean is over the a_0 that a_t may have come from, where they are of a
  policy whose modes have the given weight.
  """
  alpha_bar = schedule.alpha_bars[step]
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


def reverse_noise(noisy, step, schedule):
  """The same of reverse sampling: [M], which no policy enters.

  Quadrature again: noises on a grid, whose normal density joins the exponent.
  """
  num_noises, temperature = 2_001, 0.5
  noise = jnp.linspace(-7.0, 7.0, num_noises)
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


@pytest.mark.parametrize("step", STEPS)
def test_the_clean_actions_target_is_the_score_of_its_own_density(step):
  # Exact where clean actions are of the wanted density.
  noisy = jnp.asarray(NOISY, jnp.float32)
  got = clean_action_noise(0.8, noisy, step, SCHEDULE)
  # Single precision, of gradients as large as (1.5 - 0.7) / 0.1^2 = 80.
  expected = exact_noise_of_modes(0.8, step)
  np.testing.assert_allclose(got, expected, atol=2e-3)


@pytest.mark.parametrize("step", STEPS)
def test_only_reverse_sampling_tells_the_modes_weights(step):
  # Clean actions of a policy with both modes right and their weights wrong:
  # the target is the score of that policy, so that nothing moves it. Reverse
  # samples are weighed by Q, and give the score of the wanted density.
  noisy = jnp.asarray(NOISY, jnp.float32)
  wanted, wrong = (exact_noise_of_modes(weight, step) for weight in (0.8, 0.5))
  assert np.abs(wanted - wrong).max() > 0.02
  np.testing.assert_allclose(
    clean_action_noise(0.5, noisy, step, SCHEDULE), wrong, atol=2e-3
  )
  np.testing.assert_allclose(
    reverse_noise(noisy, jnp.int32(step), SCHEDULE), wanted, atol=2e-3
  )


def test_what_is_drawn_has_those_weights():
  # The same through the sampler, of enough steps that it adds little.
  schedule = diffusion.make_schedule("vp", 24)
  noisy = jnp.linspace(-3.5, 3.5, 141)

  @jax.jit
  def draw(table):
    return diffusion.sample_posterior(
      jax.random.key(0),
      lambda action, step: jnp.interp(action, noisy, table[step]),
      schedule,
      (10_000, 1),
    )

  for noise_fn, expected in (
    (functools.partial(clean_action_noise, 0.5), 0.5),
    (reverse_noise, 0.8),
  ):
    table = jax.lax.map(
      lambda step, f=noise_fn: f(noisy, step, schedule), jnp.arange(24)
    )
    samples = np.asarray(draw(table))
    # Five standard errors are 0.025; the rest is for the steps' size.
    assert np.mean(samples > 0) == pytest.approx(expected, abs=0.03)
    # Where the modes are is right by both.
    assert np.mean(np.abs(samples)) == pytest.approx(MODE, abs=0.03)
