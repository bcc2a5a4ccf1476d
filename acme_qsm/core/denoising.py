"""Denoising of several weighted actions for each observation."""

import jax
import jax.numpy as jnp

from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.networks import DiffusionNetworks


def weighted_loss(
  networks: DiffusionNetworks,
  schedule: diffusion.NoiseSchedule,
  params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  action: jax.Array,
  weight: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """The denoiser's loss at several weighted actions for each observation.

  The actions of one observation are noised to the same denoising step, each by
  a noise of its own.

  Args:
    networks: the denoiser.
    schedule: the noise schedule.
    params: the denoiser's parameters.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.
    action: [B, K, A] clean actions.
    weight: [B, K] their weights, which carry the 1 / K of a mean over k.

  Returns:
    The loss [], a mean over the batch and the action's dimensions, and the
    denoising steps [B].
  """
  batch_size, num_samples, size = action.shape
  step_key, noise_key = jax.random.split(key)
  steps = jax.random.randint(step_key, (batch_size,), 0, schedule.num_steps)
  repeated = jnp.repeat(steps, num_samples)
  flat = action.reshape(-1, size)
  noise = jax.random.normal(noise_key, flat.shape)
  noise_prediction = networks.denoise(
    params,
    jnp.repeat(observation, num_samples, axis=0),
    diffusion.add_noise(schedule, flat, noise, repeated),
    repeated,
  )
  per_action = losses.weighted_denoising_loss(
    noise_prediction, noise, weight.reshape(-1)
  )
  return jnp.sum(per_action) / batch_size, steps
