"""Noise schedules and the forward process of a diffusion.

Index t = 0 is the least noisy denoising step (the last one of the reverse
process), t = T - 1 the noisiest. With noise levels beta_t, alpha_t = 1 - beta_t
and alpha_bar_t = prod_{l <= t} alpha_l, the forward process of Ho et al. (2020,
https://arxiv.org/abs/2006.11239) is

  a_t = sqrt(alpha_bar_t) a_0 + sqrt(1 - alpha_bar_t) eps,   eps ~ N(0, I).

A denoiser's output is the noise prediction eps; the score it stands for is
-eps / sqrt(1 - alpha_bar_t).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm.diffusion.betas import make_betas
from acme_qsm.diffusion.betas import ScheduleName


class NoiseSchedule(NamedTuple):
  """Noise levels per denoising step, index 0 the least noisy.

  Attributes:
    betas: [T] variance of the noise added by step t, in (0, 1).
    alphas: [T] 1 - betas.
    alpha_bars: [T] cumulative product of alphas: the share of the action's
      variance left after step t.
  """

  betas: jax.Array
  alphas: jax.Array
  alpha_bars: jax.Array

  @property
  def num_steps(self) -> int:
    """The number of denoising steps T."""
    return self.betas.shape[0]


def make_schedule(
  name: ScheduleName,
  num_steps: int,
  *,
  beta_start: float | None = None,
  beta_end: float | None = None,
) -> NoiseSchedule:
  """Makes a noise schedule.

  Args:
    name: "vp" (variance preserving; Song et al., 2021), "cosine" (Nichol &
      Dhariwal, 2021) or "linear" (Ho et al., 2020).
    num_steps: the number of denoising steps T, at least 1.
    beta_start: "linear": beta of the least noisy step, in (0, 1), by default
      1e-4. "vp": the SDE's rate beta at time 0, positive, by default 0.1.
      "cosine" has no bounds.
    beta_end: the same of the noisiest step and of time 1, at least beta_start;
      by default 0.02 and 10. With a single step, "linear" has beta_start alone.

  Returns:
    The schedule, each array of shape [T] and dtype float32.

  Raises:
    ValueError: if the name is unknown, num_steps is not positive, the bounds
      are out of range or not the schedule's to have, or float32 cannot tell
      the first alpha_bar from 1 or the last one from 0.

  Examples:
    >>> [round(float(x), 3) for x in make_schedule("vp", 5).alpha_bars]
    [0.804, 0.435, 0.159, 0.039, 0.006]

    The linear schedule that the reference implementation of soft diffusion
    actor-critic trains with, 0.8 times 1e-4 to 0.999:

    >>> reference = make_schedule(
    ...   "linear", 20, beta_start=0.8 * 1e-4, beta_end=0.8 * 0.999
    ... )
    >>> print(f"{reference.alpha_bars[-1]:.0e}")
    5e-06

    That of its paper's toy problem (appendix C.1), after which nothing is left
    of the action:

    >>> toy = make_schedule("linear", 20, beta_start=0.001, beta_end=0.999)
    >>> print(f"{toy.alpha_bars[-1]:.0e}")
    6e-11
  """
  betas = make_betas(name, num_steps, beta_start=beta_start, beta_end=beta_end)
  return NoiseSchedule(
    betas=jnp.asarray(betas, jnp.float32),
    alphas=jnp.asarray(1.0 - betas, jnp.float32),
    alpha_bars=jnp.asarray(np.cumprod(1.0 - betas), jnp.float32),
  )


def per_example(values: jax.Array, like: jax.Array) -> jax.Array:
  """Appends axes to values ([] or [B]) until they broadcast against like."""
  return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def add_noise(
  schedule: NoiseSchedule,
  action: jax.Array,
  noise: jax.Array,
  step: jax.Array,
) -> jax.Array:
  """Noises actions: sqrt(alpha_bar_t) a + sqrt(1 - alpha_bar_t) eps.

  Ho et al. (2020), eq. 4.

  Args:
    schedule: the noise schedule.
    action: [B, A] clean actions.
    noise: [B, A] standard normal noise eps.
    step: [B] or [] denoising steps t in 0 .. T - 1, integers.

  Returns:
    The noisy actions [B, A].
  """
  chex.assert_equal_shape([action, noise])
  step = jnp.asarray(step)
  chex.assert_type(step, int)
  alpha_bar = per_example(schedule.alpha_bars[step], action)
  return jnp.sqrt(alpha_bar) * action + jnp.sqrt(1.0 - alpha_bar) * noise


def remove_noise(
  schedule: NoiseSchedule,
  noisy_action: jax.Array,
  noise: jax.Array,
  step: jax.Array,
) -> jax.Array:
  """The clean action that noise has hidden: the inverse of `add_noise`.

  (a_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t); Ho et al. (2020), eq.
  15. With the denoiser's noise prediction as eps, its estimate of the clean
  action.

  Args:
    schedule: the noise schedule.
    noisy_action: [B, ..., A] noisy actions a_t.
    noise: [B, ..., A] the noise eps in them, or a prediction of it.
    step: [B] or [] denoising steps t in 0 .. T - 1, integers.

  Returns:
    The clean actions [B, ..., A]. They are as large as the noise times
    1 / sqrt(alpha_bar_t) where the noise is not that of the action.
  """
  chex.assert_equal_shape([noisy_action, noise])
  step = jnp.asarray(step)
  chex.assert_type(step, int)
  alpha_bar = per_example(schedule.alpha_bars[step], noisy_action)
  return estimate_clean(alpha_bar, noisy_action, noise)


def estimate_clean(
  alpha_bar: jax.Array, noisy_action: jax.Array, noise: jax.Array
) -> jax.Array:
  """As `remove_noise`, of an alpha_bar_t that broadcasts against actions."""
  noise = jnp.sqrt(1.0 - alpha_bar) * noise
  return (noisy_action - noise) / jnp.sqrt(alpha_bar)
