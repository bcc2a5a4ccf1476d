"""Reverse samples: clean actions that a noisy action may have come from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm.diffusion.schedules import NoiseSchedule
from acme_qsm.diffusion.schedules import per_example
from acme_qsm.diffusion.schedules import remove_noise

# Where the normal's hazard is as good as linear over what is drawn: from here
# on in standard deviations, or in intervals narrower than this. Both keep the
# error of the distribution function, in float32, below 1e-4.
_TAIL = 5.0
_NARROW = 0.02
# What is less than exp(-18) of a density's mode is left out of integrals.
_LOG_CUT = 18.0


def reverse_samples(
  key: jax.Array,
  schedule: NoiseSchedule,
  noisy_action: jax.Array,
  step: jax.Array,
  num_samples: int,
  *,
  bound: float | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Draws clean actions and noises that add up to given noisy actions.

  The reverse sampling distribution of Ma et al. (2025,
  https://arxiv.org/abs/2502.00361, theorem 3.2): with eps ~ N(0, I), the clean
  action is (a_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t), so that

    a_t = sqrt(alpha_bar_t) clean + sqrt(1 - alpha_bar_t) eps.

  With a bound b, eps is drawn from the normal truncated, dimension by
  dimension, to where |clean| <= b:

    [(a_t - b sqrt(alpha_bar_t)) / sqrt(1 - alpha_bar_t),
     (a_t + b sqrt(alpha_bar_t)) / sqrt(1 - alpha_bar_t)],

  which keeps weights times noises unbiased, where clipping clean actions would
  not. Noisy actions may lie anywhere, far outside of [-b, b] too.

  Args:
    key: a PRNG key, consumed.
    schedule: the noise schedule.
    noisy_action: [B, A] noisy actions a_t.
    step: [B] or [] denoising steps t in 0 .. T - 1, integers.
    num_samples: K, the number of draws for each noisy action, at least 1.
    bound: b, the largest size of a clean action's entries, positive; None for
      no bound.

  Returns:
    Clean actions [B, K, A] and noises [B, K, A]. With a bound, both are held
    constant: no gradient flows through them.

  Raises:
    ValueError: if num_samples or bound is not positive.
  """
  if num_samples < 1:
    raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
  if bound is not None and bound <= 0:
    raise ValueError(f"bound must be positive or None, got {bound}.")
  chex.assert_rank(noisy_action, 2)
  batch_size, action_size = noisy_action.shape
  step = jnp.broadcast_to(jnp.asarray(step), (batch_size,))
  chex.assert_type(step, int)
  shape = (batch_size, num_samples, action_size)
  repeated = jnp.broadcast_to(noisy_action[:, None], shape)
  if bound is None:
    noise = jax.random.normal(key, shape, noisy_action.dtype)
    return remove_noise(schedule, repeated, noise, step), noise
  repeated = jax.lax.stop_gradient(repeated)
  alpha_bar = per_example(schedule.alpha_bars[step], repeated)
  action_scale, noise_scale = jnp.sqrt(alpha_bar), jnp.sqrt(1.0 - alpha_bar)
  # By symmetry: draw for |a_t|, where the interval is most to the right.
  size = jnp.abs(repeated[:, :1])
  offset = _draw_truncated(
    jax.random.uniform(key, shape, noisy_action.dtype),
    (size - bound * action_scale) / noise_scale,
    2.0 * bound * action_scale / noise_scale,
  )
  # The clean action comes first: the noise follows from it without loss, but
  # where alpha_bar is small not the other way round.
  clean = bound - offset * noise_scale / action_scale
  clean = jnp.where(repeated < 0, -1.0, 1.0) * jnp.clip(clean, -bound, bound)
  return clean, (repeated - action_scale * clean) / noise_scale


def stein_kernel(
  schedule: NoiseSchedule,
  noisy_action: jax.Array,
  step: jax.Array,
  clean_action: jax.Array,
  tilt: jax.Array,
  *,
  bound: float | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The Stein kernel of reverse samples' density, tilted, and its mean.

  Entry by entry: q_g(a) is proportional to exp(g a) q(a), with q the density of
  what `reverse_samples` draws. Its kernel is

    tau(a) = 1 / q_g(a) int_a^b (x - mean) q_g(x) dx,

  which is not negative, 0 at -b and b, and for which E[(a - mean) f(a)] =
  E[tau(a) f'(a)] under q_g (Stein, 1986; Cacoullos & Papathanasiou, 1989). A
  normal's is its variance, (1 - alpha_bar_t) / alpha_bar_t, whatever the tilt;
  the uniform density's, which the box leaves of much noise, (b^2 - a^2) / 2.

  Args:
    schedule: the noise schedule.
    noisy_action: [B, A] noisy actions a_t.
    step: [B] or [] denoising steps t in 0 .. T - 1, integers.
    clean_action: [B, K, A] where; within the bound.
    tilt: [B, A] g.
    bound: b, positive; None for none.

  Returns:
    tau [B, K, A] and the mean [B, A]. With a bound, by quadrature, to four
    digits in single precision, however steep the tilt.
  """
  chex.assert_rank([noisy_action, clean_action, tilt], [2, 3, 2])
  alpha_bar = per_example(schedule.alpha_bars[step], noisy_action)
  variance = (1.0 - alpha_bar) / alpha_bar
  location = noisy_action / jnp.sqrt(alpha_bar)
  if bound is None:
    mean = location + variance * tilt
    kernel = jnp.broadcast_to(variance[:, None], clean_action.shape)
    return kernel, mean
  precision = jnp.broadcast_to(1.0 / variance, tilt.shape)
  rise = location * precision + tilt  # Of log q_g, at 0.
  mean = _tilted_mean(rise, precision, bound)
  mean_, rise, precision = (each[:, None] for each in (mean, rise, precision))
  # From a to the end on its own side of the mean, over which q_g, as any
  # density of concave logarithm, rises by no more than a factor of e.
  side = jnp.where(clean_action >= mean_, 1.0, -1.0)
  fall = side * (clean_action * precision - rise)
  width = jnp.minimum(bound - side * clean_action, _reach(fall, precision))
  points, shares = _quadrature(8)
  away = width[..., None] * points
  log_ratio = -(fall[..., None] + 0.5 * precision[..., None] * away) * away
  excess = side * (clean_action - mean_)
  integrand = (away + excess[..., None]) * jnp.exp(log_ratio)
  return width * jnp.sum(shares * integrand, axis=-1), mean


def _tilted_mean(
  rise: jax.Array, precision: jax.Array, bound: float
) -> jax.Array:
  """The mean of the density exp(rise a - precision a^2 / 2) on the box."""
  # By symmetry: in distances from the end where the density is. There, log q
  # falls by so much per unit inwards, or first rises to a mode.
  fall = jnp.abs(rise) - precision * bound
  mode = jnp.maximum(-fall / precision, 0.0)
  low = jnp.maximum(mode - jnp.sqrt(2.0 * _LOG_CUT / precision), 0.0)
  high = jnp.minimum(2.0 * bound, _reach(fall, precision))
  points, shares = _quadrature(32)
  away = low[..., None] + (high - low)[..., None] * points
  log_density = -jnp.maximum(fall, 0.0)[..., None] * away - 0.5 * precision[
    ..., None
  ] * jnp.square(away - mode[..., None])
  weight = shares * jnp.exp(
    log_density - jnp.max(log_density, axis=-1, keepdims=True)
  )
  distance = jnp.sum(weight * away, axis=-1) / jnp.sum(weight, axis=-1)
  return jnp.where(rise < 0, -1.0, 1.0) * (bound - distance)


def _reach(fall: jax.Array, precision: jax.Array) -> jax.Array:
  """Where exp(-fall y - precision y^2 / 2) is next to nothing of its mode."""
  falling = jnp.maximum(fall, 0.0)
  root = jnp.sqrt(jnp.square(falling) + 2.0 * _LOG_CUT * precision)
  return jnp.maximum(-fall / precision, 0.0) + 2.0 * _LOG_CUT / (falling + root)


def _quadrature(num_points: int) -> tuple[jax.Array, jax.Array]:
  """Gauss-Legendre points and weights on [0, 1]."""
  points, weights = np.polynomial.legendre.leggauss(num_points)
  return jnp.float32((points + 1.0) / 2.0), jnp.float32(weights / 2.0)


def _draw_truncated(
  uniform: jax.Array, low: jax.Array, width: jax.Array
) -> jax.Array:
  """Inverts the distribution function of a truncated standard normal.

  With tail(x) the normal's upper tail and u uniform, x solves
  tail(x) = tail(low) - u (tail(low) - tail(low + width)). Taken literally that
  loses all digits in the far tail and in narrow intervals. There the hazard
  h(x) = density(x) / tail(x) is as good as linear from low on, and the offset
  y = x - low solves h y + h' y^2 / 2 = E with an exponential E.

  Args:
    uniform: [B, K, A] draws in [0, 1).
    low: [B, 1, A] the lower end; at least -width / 2.
    width: [B, 1, 1] the interval's width.

  Returns:
    Offsets from the lower end, in [0, width]: [B, K, A].
  """
  tail_low = jax.scipy.special.ndtr(-low)
  tail_high = jax.scipy.special.ndtr(-low - width)
  tail = tail_high + (1.0 - uniform) * (tail_low - tail_high)
  # At 1, where a low end far to the left takes a draw of 0, there would be an
  # atom at that end.
  tail = jnp.minimum(tail, 1.0 - jnp.finfo(tail.dtype).epsneg)
  central = -jax.scipy.special.ndtri(tail) - low

  excess = _hazard_excess(low)  # h - low.
  hazard = low + excess
  slope = hazard * excess
  total = hazard * width + 0.5 * slope * width**2
  exponential = -jnp.log1p(uniform * jnp.expm1(-total))
  linear = (
    2.0
    * exponential
    / (hazard + jnp.sqrt(hazard**2 + 2.0 * slope * exponential))
  )
  offset = jnp.where((low > _TAIL) | (width < _NARROW), linear, central)
  return jnp.clip(offset, 0.0, width)


def _hazard_excess(x: jax.Array) -> jax.Array:
  """The standard normal's hazard less x, for x above -1."""
  # Laplace's continued fraction, 1 / (x + 2 / (x + 3 / ...)); the larger x, the
  # fewer terms it needs.
  far = jnp.maximum(x, _TAIL)
  fraction = far
  for term in range(8, 1, -1):
    fraction = far + term / fraction
  near = jnp.minimum(x, _TAIL)
  density = jax.scipy.stats.norm.pdf(near)
  return jnp.where(
    x > _TAIL, 1.0 / fraction, density / jax.scipy.special.ndtr(-near) - near
  )
