"""Chains of the reverse process, with the log-probability of each step.

A chain holds samples before any clip, in the order of the noise levels:
chain[T] is the start a_T, denoising step t takes chain[t + 1] (clipped, where
the sampler clips) to chain[t], and chain[0], clipped, is the action. Each step
is a Gaussian whose standard deviation has a floor, so that the last one, which
adds no noise otherwise, has a density too (Ren et al., 2024,
https://arxiv.org/abs/2409.00588).
"""

import chex
import jax
import jax.numpy as jnp

from acme_qsm.diffusion.samplers import check_arguments
from acme_qsm.diffusion.samplers import DenoiseFn
from acme_qsm.diffusion.samplers import MAX_UNROLL
from acme_qsm.diffusion.schedules import NoiseSchedule
from acme_qsm.diffusion.schedules import per_example
from acme_qsm.diffusion.transitions import check_name
from acme_qsm.diffusion.transitions import clip_latent
from acme_qsm.diffusion.transitions import Levels
from acme_qsm.diffusion.transitions import make_levels
from acme_qsm.diffusion.transitions import PosteriorVariance
from acme_qsm.diffusion.transitions import transition_mean
from acme_qsm.diffusion.transitions import transition_std
from acme_qsm.diffusion.transitions import TransitionName


def sample_chain(
  key: jax.Array,
  denoise_fn: DenoiseFn,
  schedule: NoiseSchedule,
  shape: tuple[int, int],
  *,
  sampler: TransitionName = "noise_mean",
  posterior_variance: PosteriorVariance = "fixed_small",
  temperature: float | jax.Array = 1.0,
  min_std: float = 0.1,
  clip: float | None = 1.0,
  start_scale: float | jax.Array = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Draws actions and returns the whole way to them.

  As `sample` ("noise_mean") or `sample_posterior` ("posterior"), but that step
  t's standard deviation is max(temperature * std_t, min_std), at t = 0 too.

  Args:
    key: a PRNG key, consumed.
    denoise_fn: maps (noisy_action [B, A], step [] int32) to the noise
      prediction [B, A].
    schedule: the noise schedule, T steps.
    shape: [B, A].
    sampler: the steps' Gaussian: see `transition`.
    posterior_variance: the variance of "posterior": see `transition`.
    temperature: scale of the steps' standard deviation, at least 0.
    min_std: least standard deviation of a step, in units of action, positive.
    clip: bound of what enters a step ("noise_mean") or of its clean-action
      estimate ("posterior"), positive; None clips nothing.
    start_scale: standard deviation of the start, at least 0.

  Returns:
    The chain [T + 1, B, A], before any clip: the actions are chain[0], clipped.
    And the log-probability [B, T] of each step t given what entered it, summed
    over the action's dimensions, held constant: `chain_log_prob` has gradients.

  Raises:
    ValueError: if an argument is out of range.
  """
  check_arguments(clip, temperature=temperature, start_scale=start_scale)
  levels, stds = _make_levels(
    schedule, sampler, posterior_variance, temperature, min_std
  )
  num_steps = schedule.num_steps
  # The rows are those of `sample`.
  draws = jax.random.normal(key, (num_steps + 1, *shape))
  start = start_scale * draws[-1]

  def denoise(action, inputs):
    step, draw, level, std = inputs
    prediction = denoise_fn(action, step)
    chex.assert_shape(prediction, shape)
    mean = transition_mean(level, prediction, action, sampler, clip)
    drawn = mean + std * draw
    log_prob = _log_prob(drawn, mean, std)
    return clip_latent(drawn, sampler, clip), (drawn, log_prob)

  _, (samples, log_probs) = jax.lax.scan(
    denoise,
    start,
    (jnp.arange(num_steps), draws[:-1], levels, stds),
    reverse=True,
    unroll=min(num_steps, MAX_UNROLL),
  )
  chain = jnp.concatenate([samples, start[None]])
  return chain, jax.lax.stop_gradient(log_probs.T)


def chain_log_prob(
  denoise_fn: DenoiseFn,
  schedule: NoiseSchedule,
  chain: jax.Array,
  *,
  sampler: TransitionName = "noise_mean",
  posterior_variance: PosteriorVariance = "fixed_small",
  temperature: float | jax.Array = 1.0,
  min_std: float = 0.1,
  clip: float | None = 1.0,
) -> jax.Array:
  """Log-probabilities of the steps of a given chain.

  What policy gradients differentiate (Psenka et al., 2024, eq. 9): the chain is
  held constant, and gradients flow into whatever denoise_fn closes over. All
  steps are denoised at once.

  Args:
    denoise_fn: maps (noisy_action [B, A], step [] int32) to the noise
      prediction [B, A]; it is vectorised over steps (`jax.vmap`).
    schedule: the noise schedule, T steps.
    chain: [T + 1, B, A] samples before any clip, as of `sample_chain`.
    sampler: as the chain was drawn.
    posterior_variance: as the chain was drawn.
    temperature: as the chain was drawn.
    min_std: as the chain was drawn.
    clip: as the chain was drawn.

  Returns:
    The log-probability [B, T] of each step, summed over the action's
    dimensions.

  Raises:
    ValueError: if an argument is out of range.
  """
  check_arguments(clip, temperature=temperature)
  levels, stds = _make_levels(
    schedule, sampler, posterior_variance, temperature, min_std
  )
  chex.assert_shape(chain, (schedule.num_steps + 1, None, None))
  chain = jax.lax.stop_gradient(chain)
  entering = jnp.concatenate(
    [clip_latent(chain[1:-1], sampler, clip), chain[-1:]]  # The start is free.
  )
  predictions = jax.vmap(denoise_fn)(entering, jnp.arange(schedule.num_steps))
  chex.assert_equal_shape([predictions, entering])
  levels = jax.tree.map(lambda level: per_example(level, chain), levels)
  means = transition_mean(levels, predictions, entering, sampler, clip)
  return _log_prob(chain[:-1], means, per_example(stds, chain)).T


def _make_levels(
  schedule: NoiseSchedule,
  sampler: TransitionName,
  posterior_variance: PosteriorVariance,
  temperature: float | jax.Array,
  min_std: float,
) -> tuple[Levels, jax.Array]:
  """Returns the levels and standard deviations of all steps, each [T]."""
  check_name(sampler, posterior_variance)
  if min_std <= 0:
    raise ValueError(
      f"min_std must be positive, got {min_std}: without noise the last step "
      "has no density."
    )
  levels = make_levels(schedule)
  std = temperature * transition_std(levels, sampler, posterior_variance)
  return levels, jnp.maximum(std, min_std)


def _log_prob(sample: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
  return jnp.sum(jax.scipy.stats.norm.logpdf(sample, mean, std), axis=-1)
