"""Samplers: the reverse process of a diffusion, from noise to actions."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from acme_qsm.diffusion.schedules import NoiseSchedule
from acme_qsm.diffusion.schedules import per_example

DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]
"""(noisy_action [B, A], step [] int32) -> noise prediction [B, A]."""

# Fewer denoising steps than this are unrolled: XLA then shares what the steps
# have in common (the observation's projection) and loses the loop's overhead.
_MAX_UNROLL = 32


def sample(
  key: jax.Array,
  denoise_fn: DenoiseFn,
  schedule: NoiseSchedule,
  shape: tuple[int, ...],
  *,
  temperature: float | jax.Array = 1.0,
  clip: float | None = 1.0,
) -> jax.Array:
  """Draws actions by the DDPM reverse process (Ho et al., 2020, algorithm 2).

  From a_T ~ N(0, I), for t = T - 1, ..., 0,

    a_{t-1} = (a_t - beta_t / sqrt(1 - alpha_bar_t) eps_t) / sqrt(alpha_t)
              + temperature * sqrt(beta_t) z_t,   z_t ~ N(0, I), z_0 = 0,

  each a_{t-1} then clipped to [-clip, clip], as the official implementation of
  Q-score matching does.

  Args:
    key: a PRNG key, consumed.
    denoise_fn: maps (noisy_action of `shape`, step [] int32) to the noise
      prediction eps_t of `shape`.
    schedule: the noise schedule, T steps.
    shape: the shape of the result, [B, A].
    temperature: scale of the noise z_t added after each step, at least 0; the
      start a_T is not scaled.
    clip: bound of each intermediate sample and of the result, positive; None
      clips nothing.

  Returns:
    Actions of the given shape, float32.

  Raises:
    ValueError: if clip is not positive or temperature, where it is a plain
      number, is negative.
  """
  if clip is not None and clip <= 0:
    raise ValueError(f"clip must be positive or None, got {clip}.")
  if isinstance(temperature, int | float) and temperature < 0:
    raise ValueError(f"temperature must not be negative, got {temperature}.")
  num_steps = schedule.num_steps
  # One draw for all steps; row t is z_t, and the last one the start a_T.
  draws = jax.random.normal(key, (num_steps + 1, *shape))
  steps = jnp.arange(num_steps)
  noises = jnp.where(
    per_example(steps == 0, draws[:-1]), 0.0, temperature * draws[:-1]
  )

  def denoise(action, inputs):
    step, noise, beta, alpha, alpha_bar = inputs
    prediction = denoise_fn(action, step)
    chex.assert_shape(prediction, shape)
    action = action - beta / jnp.sqrt(1.0 - alpha_bar) * prediction
    action = action / jnp.sqrt(alpha) + jnp.sqrt(beta) * noise
    if clip is not None:
      action = jnp.clip(action, -clip, clip)
    return action, None

  actions, _ = jax.lax.scan(
    denoise,
    draws[-1],
    (steps, noises, *schedule),
    reverse=True,
    unroll=min(num_steps, _MAX_UNROLL),
  )
  return actions
