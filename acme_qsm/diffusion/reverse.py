"""Reverse samples: clean actions that a noisy action may have come from."""

import chex
import jax
import jax.numpy as jnp

from acme_qsm.diffusion.schedules import NoiseSchedule
from acme_qsm.diffusion.schedules import per_example
from acme_qsm.diffusion.schedules import remove_noise

# Where the normal's hazard is as good as linear over what is drawn: from here
# on in standard deviations, or in intervals narrower than this. Both keep the
# error of the distribution function, in float32, below 1e-4.
_TAIL = 5.0
_NARROW = 0.02


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


def density_at_bounds(
  schedule: NoiseSchedule,
  noisy_action: jax.Array,
  step: jax.Array,
  bound: float,
) -> jax.Array:
  """How dense reverse samples are at either end of their range.

  Of each entry of the clean action that `reverse_samples` draws with a bound.

  Args:
    schedule: the noise schedule.
    noisy_action: [B, A] noisy actions a_t.
    step: [B] or [] denoising steps t in 0 .. T - 1, integers.
    bound: b, positive.

  Returns:
    The logarithms of the densities at -b and at b: [B, A, 2].
  """
  alpha_bar = per_example(schedule.alpha_bars[step], noisy_action)
  action_scale, noise_scale = jnp.sqrt(alpha_bar), jnp.sqrt(1.0 - alpha_bar)
  # By symmetry, as in `reverse_samples`: the near end is that of a_t's sign.
  size = jnp.abs(noisy_action)
  low = (size - bound * action_scale) / noise_scale
  high = (size + bound * action_scale) / noise_scale
  # log(tail(low) - tail(high)), without the digits that the tails share.
  log_tail_low = jax.scipy.special.log_ndtr(-low)
  log_tail_high = jax.scipy.special.log_ndtr(-high)
  log_mass = log_tail_low + jnp.log(-jnp.expm1(log_tail_high - log_tail_low))
  # Per unit of the clean action, not of the noise.
  log_unit = jnp.log(action_scale / noise_scale) - log_mass
  near = jax.scipy.stats.norm.logpdf(low) + log_unit
  far = jax.scipy.stats.norm.logpdf(high) + log_unit
  positive = noisy_action >= 0
  return jnp.stack(
    [jnp.where(positive, far, near), jnp.where(positive, near, far)], axis=-1
  )


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
