"""Samplers: the reverse process of a diffusion, from noise to actions."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from acme_qsm.diffusion.schedules import NoiseSchedule
from acme_qsm.diffusion.transitions import check_name
from acme_qsm.diffusion.transitions import clip_latent
from acme_qsm.diffusion.transitions import make_levels
from acme_qsm.diffusion.transitions import PosteriorVariance
from acme_qsm.diffusion.transitions import transition_mean
from acme_qsm.diffusion.transitions import transition_std
from acme_qsm.diffusion.transitions import TransitionName

DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]
"""(noisy_action [B, A], step [] int32) -> noise prediction [B, A]."""

ScoreFn = Callable[[jax.Array], jax.Array]
"""action [B, A] -> score [B, A], the gradient of a log-density."""

# Fewer denoising steps than this are unrolled: XLA then shares what the steps
# have in common (the observation's projection) and loses the loop's overhead.
MAX_UNROLL = 32


def check_arguments(
  clip: float | None,
  *,
  temperature: float | jax.Array = 1.0,
  start_scale: float | jax.Array = 1.0,
) -> None:
  """Checks what all samplers take; traced values are taken as they are.

  Args:
    clip: bound of samples, positive; None for none.
    temperature: scale of the noise, at least 0.
    start_scale: scale of the start, at least 0.

  Raises:
    ValueError: naming what is out of range.
  """
  if clip is not None and clip <= 0:
    raise ValueError(f"clip must be positive or None, got {clip}.")
  scales = {"temperature": temperature, "start_scale": start_scale}
  for name, scale in scales.items():
    if isinstance(scale, int | float) and scale < 0:
      raise ValueError(f"{name} must not be negative, got {scale}.")


def sample(
  key: jax.Array,
  denoise_fn: DenoiseFn,
  schedule: NoiseSchedule,
  shape: tuple[int, ...],
  *,
  temperature: float | jax.Array = 1.0,
  clip: float | None = 1.0,
  start_scale: float | jax.Array = 1.0,
) -> jax.Array:
  """Draws actions by the DDPM reverse process (Ho et al., 2020, algorithm 2).

  From a_T ~ start_scale N(0, I), for t = T - 1, ..., 0,

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
      start a_T is not scaled by it.
    clip: bound of each intermediate sample and of the result, positive; None
      clips nothing. The start is not clipped.
    start_scale: standard deviation of the start a_T, at least 0.

  Returns:
    Actions of the given shape, float32.

  Raises:
    ValueError: if clip is not positive or temperature or start_scale, where it
      is a plain number, is negative.
  """
  return _sample(
    "noise_mean",
    key,
    denoise_fn,
    schedule,
    shape,
    temperature,
    clip,
    start_scale,
  )


def sample_posterior(
  key: jax.Array,
  denoise_fn: DenoiseFn,
  schedule: NoiseSchedule,
  shape: tuple[int, ...],
  *,
  temperature: float | jax.Array = 1.0,
  clip: float | None = 1.0,
  start_scale: float | jax.Array = 1.0,
  variance: PosteriorVariance = "fixed_small",
) -> jax.Array:
  """Draws actions by the reverse process with a clipped clean-action estimate.

  From a_T ~ start_scale N(0, I), for t = T - 1, ..., 0 the denoiser's estimate
  of the clean action is clipped to [-clip, clip], and a_{t-1} drawn from the
  forward process' posterior given that estimate and a_t: the equations are
  those of "posterior" in `transition`. Samples on the way are not clipped; the
  last one is the clipped estimate.

  For denoisers trained to denoise (soft diffusion actor-critic, DIPO, QVPO,
  DPPO, Diffusion-QL). Where alpha_bar ends near 0 the clip is needed: a small
  error of the noise prediction is 1 / sqrt(alpha_bar_t) times as large in the
  clean action.

  The posterior is that of one clean action, so that a policy is drawn narrower
  than the denoiser knows it, the more so the fewer the steps: a Gaussian of
  deviation 0.1, 0.3 or 0.5 with 0.13, 0.42 or 0.53 of its variance at "vp", T =
  10. "fixed_large" draws wider: with 0.37, 1.01 and 1.04 of it.

  Args:
    key: a PRNG key, consumed.
    denoise_fn: maps (noisy_action of `shape`, step [] int32) to the noise
      prediction eps_t of `shape`.
    schedule: the noise schedule, T steps.
    shape: the shape of the result, [B, A].
    temperature: scale of the noise added after each step, at least 0; the start
      a_T is not scaled by it.
    clip: bound of the clean-action estimates, and so of the result, positive;
      None clips nothing.
    start_scale: standard deviation of the start a_T, at least 0.
    variance: "fixed_small", the posterior's own, or "fixed_large", beta_t: see
      `transition`. No noise is added at t = 0.

  Returns:
    Actions of the given shape, float32.

  Raises:
    ValueError: as `sample`, or if the variance is unknown.
  """
  check_name("posterior", variance)
  return _sample(
    "posterior",
    key,
    denoise_fn,
    schedule,
    shape,
    temperature,
    clip,
    start_scale,
    variance,
  )


def _sample(
  name: TransitionName,
  key: jax.Array,
  denoise_fn: DenoiseFn,
  schedule: NoiseSchedule,
  shape: tuple[int, ...],
  temperature: float | jax.Array,
  clip: float | None,
  start_scale: float | jax.Array,
  variance: PosteriorVariance = "fixed_small",
) -> jax.Array:
  check_arguments(clip, temperature=temperature, start_scale=start_scale)
  num_steps = schedule.num_steps
  levels = make_levels(schedule)
  # One draw for all steps; row t is z_t, and the last one the start a_T.
  draws = jax.random.normal(key, (num_steps + 1, *shape))
  noises = temperature * draws[:-1]

  def denoise(action, inputs):
    step, noise, level, std = inputs
    prediction = denoise_fn(action, step)
    chex.assert_shape(prediction, shape)
    mean = transition_mean(level, prediction, action, name, clip)
    return clip_latent(mean + std * noise, name, clip), None

  actions, _ = jax.lax.scan(
    denoise,
    start_scale * draws[-1],
    (
      jnp.arange(num_steps),
      noises,
      levels,
      transition_std(levels, name, variance),
    ),
    reverse=True,
    unroll=min(num_steps, MAX_UNROLL),
  )
  return actions


def sample_langevin(
  key: jax.Array,
  score_fn: ScoreFn,
  step_sizes: jax.Array,
  shape: tuple[int, ...],
  *,
  temperature: float | jax.Array = 1.0,
  clip: float | None = 1.0,
  start_scale: float | jax.Array = 1.0,
) -> jax.Array:
  """Draws actions by unadjusted Langevin dynamics with a time-free score.

  From a^0 ~ start_scale N(0, I), for k = 0, ..., K - 1,

    a^{k+1} = clip(a^k + delta_k / 2 score(a^k)
                   + temperature * sqrt(delta_k) z^k),   z^k ~ N(0, I).

  With many small steps and no clip this draws from the density whose score it
  is given (Parisi, 1981). Psenka et al. (2024, eq. 6) write a^k + Psi(a^k) / K
  + N(0, I / K): that is delta_k = 1 / K with the score 2 Psi. The
  implementation of Q-score matching beside the soft diffusion actor-critic
  takes K = 20 steps of delta_k = 1 - k / 20 and clips to [-1, 1]:

    step_sizes = 1.0 - jnp.arange(20) / 20

  A denoiser's score at step t is -eps / sqrt(1 - alpha_bar_t).

  Args:
    key: a PRNG key, consumed.
    score_fn: maps actions of `shape` to their score of `shape`.
    step_sizes: [K] delta_k, the variance of step k's noise, not negative.
    shape: the shape of the result, [B, A].
    temperature: scale of the noise z^k, at least 0.
    clip: bound of each sample but the start, positive; None clips nothing.
    start_scale: standard deviation of the start a^0, at least 0.

  Returns:
    Actions of the given shape, float32.

  Raises:
    ValueError: as `sample`.
  """
  check_arguments(clip, temperature=temperature, start_scale=start_scale)
  step_sizes = jnp.asarray(step_sizes, jnp.float32)
  chex.assert_rank(step_sizes, 1)
  num_steps = step_sizes.shape[0]
  # The first draw is the start.
  draws = jax.random.normal(key, (num_steps + 1, *shape))

  def move(action, inputs):
    step_size, draw = inputs
    score = score_fn(action)
    chex.assert_shape(score, shape)
    action = action + 0.5 * step_size * score
    action = action + jnp.sqrt(step_size) * (temperature * draw)
    if clip is not None:
      action = jnp.clip(action, -clip, clip)
    return action, None

  actions, _ = jax.lax.scan(
    move,
    start_scale * draws[0],
    (step_sizes, draws[1:]),
    unroll=min(max(num_steps, 1), MAX_UNROLL),
  )
  return actions
