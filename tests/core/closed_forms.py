"""What tests know without the library: diffusion in double precision."""

import numpy as np


def vp_alpha_bars(num_steps):
  """The alpha_bar_t [T] of the "vp" schedule.

  exp(-int beta(u) du) of rates from 0.1 to 10, at each interval's end.
  """
  u = np.arange(1, num_steps + 1) / num_steps
  return np.exp(-(0.1 * u + 9.9 * u**2 / 2))


def alpha_bars_of(schedule):
  """Those of the library's schedule, from its rounded betas: [T]."""
  return np.cumprod(1 - np.asarray(schedule.betas, np.float64))


def reverse_step(alpha_bars, t, prediction, action, name, clip=None):
  """Mean and deviation of what denoising step t draws.

  Args:
    alpha_bars: [T].
    t: the step.
    prediction: the noise prediction, as large as the action.
    action: what enters the step.
    name: "noise_mean"; "posterior", the Gaussian product q(a_t | a_{t-1})
      q(a_{t-1} | a_0); "fixed_large", the same of variance beta.
    clip: bound of the clean action of the latter two.
  """
  before = alpha_bars[t - 1] if t else 1.0
  alpha, alpha_bar = alpha_bars[t] / before, alpha_bars[t]
  beta = 1 - alpha
  if name == "noise_mean":
    mean = action - beta / np.sqrt(1 - alpha_bar) * prediction
    return mean / np.sqrt(alpha), np.sqrt(beta) if t else 0.0
  clean = action - np.sqrt(1 - alpha_bar) * prediction
  clean = clean / np.sqrt(alpha_bar)
  if clip is not None:
    clean = np.clip(clean, -clip, clip)
  if not t:
    return clean, 0.0
  precision = alpha / beta + 1 / (1 - before)
  mean = np.sqrt(alpha) / beta * action + np.sqrt(before) / (1 - before) * clean
  variance = beta if name == "fixed_large" else 1 / precision
  return mean / precision, np.sqrt(variance)


def reverse_process(alpha_bars, denoise, action, name, clip=None, rng=None):
  """Goes all steps from the start given, with rng's noise, or without any.

  Args:
    alpha_bars: [T].
    denoise: (action, t) -> noise prediction.
    action: the start.
    name: as `reverse_step`.
    clip: the sampler's.
    rng: numpy's generator; None for no noise.
  """
  for t in reversed(range(len(alpha_bars))):
    prediction = denoise(action, t)
    action, std = reverse_step(alpha_bars, t, prediction, action, name, clip)
    if rng is not None and t:
      action = action + std * rng.normal(size=action.shape)
    if clip is not None and name == "noise_mean":
      action = np.clip(action, -clip, clip)
  return action


def moments_drawn(alpha_bars, mean, deviation, name):
  """Mean and variance of what is drawn with the exact denoiser of a Gaussian.

  N(m, s^2) noised is N(sqrt(abar) m, abar s^2 + 1 - abar), whose score times
  -sqrt(1 - abar) is linear: so is each step, and what is drawn is normal.
  """
  drawn_mean, variance = 0.0, 1.0
  for t in reversed(range(len(alpha_bars))):
    at_zero, at_one = (
      reverse_step(
        alpha_bars,
        t,
        gaussian_noise(alpha_bars[t], mean, deviation, a),
        a,
        name,
      )
      for a in (0.0, 1.0)
    )
    slope, std = at_one[0] - at_zero[0], at_zero[1]
    drawn_mean = at_zero[0] + slope * drawn_mean
    variance = slope**2 * variance + std**2
  return drawn_mean, variance


def gaussian_noise(alpha_bar, mean, deviation, action):
  """The exact noise prediction of a noised Gaussian; takes JAX's arrays too."""
  variance = alpha_bar * deviation**2 + 1 - alpha_bar
  return (1 - alpha_bar) ** 0.5 * (action - alpha_bar**0.5 * mean) / variance


def mean_noise(log_density, clean, noisy, alpha_bar):
  """E[noise | noisy] of a density on evenly spaced clean actions, by sums.

  Args:
    log_density: clean actions -> logarithms, up to a constant.
    clean: [N] the grid.
    noisy: [...] noisy actions.
    alpha_bar: the noise level.

  Returns:
    The noise predictions [...].
  """
  noise = np.asarray(noisy)[..., None] - np.sqrt(alpha_bar) * clean
  noise = noise / np.sqrt(1 - alpha_bar)
  log_weight = log_density(clean) - noise**2 / 2
  weight = np.exp(log_weight - log_weight.max(axis=-1, keepdims=True))
  return np.sum(weight * noise, axis=-1) / np.sum(weight, axis=-1)


def draw_on_box(log_density, alpha_bars, size, name="posterior"):
  """Samples [size] with the exact denoiser of a density on [-1, 1].

  As the sampler's own clip leaves them: a clean action's mean is in the box.
  """
  clean, noisy = np.linspace(-1, 1, 801), np.linspace(-6, 6, 1_201)
  tables = [
    mean_noise(log_density, clean, noisy, alpha_bar) for alpha_bar in alpha_bars
  ]
  rng = np.random.default_rng(0)
  return reverse_process(
    alpha_bars,
    lambda action, t: np.interp(action, noisy, tables[t]),
    rng.normal(size=size),
    name,
    rng=rng,
  )


def moments_on_box(log_density):
  """Mean and deviation of a density on [-1, 1]."""
  grid = np.linspace(-1, 1, 2_001)
  density = np.exp(log_density(grid) - log_density(grid).max())
  mean = np.average(grid, weights=density)
  return mean, np.sqrt(np.average((grid - mean) ** 2, weights=density))
