"""Denoisers as policies: the reverse process given observations."""

import functools

import jax
import jax.numpy as jnp

from acme_qsm import diffusion
from acme_qsm import types
from acme_qsm.configs.diffusion import DiffusionConfig
from acme_qsm.core import acting
from acme_qsm.core.actions import Sampler
from acme_qsm.networks import DiffusionNetworks


def make_schedule(
  networks: DiffusionNetworks, config: DiffusionConfig
) -> diffusion.NoiseSchedule:
  """Makes the noise schedule of a denoiser.

  Args:
    networks: the denoiser.
    config: the schedule's name and number of denoising steps.

  Returns:
    The schedule.

  Raises:
    ValueError: if the denoiser was made for another number of steps: what it
      says of those that it does not know would be meaningless.
  """
  require_steps(networks, config)
  return diffusion.make_schedule(
    config.noise_schedule,
    config.num_denoising_steps,
    beta_start=config.beta_start,
    beta_end=config.beta_end,
  )


def require_steps(networks: DiffusionNetworks, config: DiffusionConfig) -> None:
  """Raises ValueError if a denoiser was made for another number of steps."""
  known = networks.num_denoising_steps
  if known not in (None, config.num_denoising_steps):
    raise ValueError(
      f"The networks were made for {known} denoising steps, but "
      f"{type(config).__name__}.num_denoising_steps is "
      f"{config.num_denoising_steps}: make both from one configuration."
    )


def temperature(config: DiffusionConfig, evaluation: bool) -> float:
  """Scale of the sampler's noise, in evaluation or not."""
  if evaluation:
    return config.evaluation_temperature
  return config.sampling_temperature


def make_sampler(
  networks: DiffusionNetworks, config: DiffusionConfig, evaluation: bool = False
) -> Sampler:
  """Makes what draws actions by the reverse process.

  Args:
    networks: the denoiser.
    config: the schedule, the sampler and its temperatures.
    evaluation: whether to sample at the temperature for evaluation.

  Returns:
    The sampler, of actions in [-1, 1].

  Raises:
    ValueError: as `make_schedule`.
  """
  schedule = make_schedule(networks, config)
  sample = {
    "noise_mean": diffusion.sample,
    "posterior": functools.partial(
      diffusion.sample_posterior, variance=config.posterior_variance
    ),
  }[config.sampler]

  def sampler(
    params: types.Params, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    return sample(
      key,
      lambda noisy_action, step: networks.denoise(
        params, observation, noisy_action, step
      ),
      schedule,
      (observation.shape[0], networks.action_size),
      temperature=temperature(config, evaluation),
      start_scale=config.sampling_start_scale,
    )

  return sampler


make_policy = acting.policy_of(make_sampler)
"""Makes the policy of a method whose actions `make_sampler` draws."""


def make_langevin_sampler(
  networks: DiffusionNetworks, config: DiffusionConfig, evaluation: bool = False
) -> Sampler:
  """Makes what draws actions by Langevin dynamics of one score.

  K = num_denoising_steps steps (`diffusion.sample_langevin`), step k of size
  1 - k / K, whose score is minus what the denoiser says at step 0.

  Args:
    networks: the denoiser.
    config: the number of steps and the temperatures.
    evaluation: whether to sample at the temperature for evaluation.

  Returns:
    The sampler, of actions in [-1, 1].

  Raises:
    ValueError: as `make_schedule`.
  """
  require_steps(networks, config)
  num_steps = config.num_denoising_steps
  step_sizes = 1.0 - jnp.arange(num_steps) / num_steps

  def sampler(
    params: types.Params, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    return diffusion.sample_langevin(
      key,
      lambda action: (
        -networks.denoise(params, observation, action, jnp.int32(0))
      ),
      step_sizes,
      (observation.shape[0], networks.action_size),
      temperature=temperature(config, evaluation),
      start_scale=config.sampling_start_scale,
    )

  return sampler
