"""Acting: from the learner's parameters and observations to actions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_qsm import diffusion
from acme_qsm import types
from acme_qsm.core.config import QSMConfig
from acme_qsm.networks import QSMNetworks


class PolicyParams(NamedTuple):
  """What a policy needs to act: see `make_policy`.

  Attributes:
    denoiser: the denoiser's parameters.
    target_denoiser: their slow copy, for evaluation.
    critics: the critics' parameters, to choose among candidate actions.
    steps: [] int32 learner steps behind these parameters.
  """

  denoiser: types.Params
  target_denoiser: types.Params
  critics: types.Params
  steps: jax.Array


Policy = Callable[[PolicyParams, jax.Array, jax.Array], jax.Array]
"""(params, key, observation [B, ...]) -> action [B, A] in [-1, 1]."""


def sample_action(
  networks: QSMNetworks,
  schedule: diffusion.NoiseSchedule,
  denoiser_params: types.Params,
  critic_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  *,
  num_candidates: int,
  temperature: float,
) -> jax.Array:
  """Draws candidate actions by the reverse process and takes the best.

  The best is what the lowest of the critics values most, as in Ma et al. (2025,
  SDAC)'s implementation; with one candidate, no critic is asked.

  Args:
    networks: the denoiser and the critics.
    schedule: the noise schedule.
    denoiser_params: the denoiser's parameters.
    critic_params: the critics' parameters.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.
    num_candidates: candidates per observation, at least 1.
    temperature: scale of the sampler's noise.

  Returns:
    Actions [B, A] in [-1, 1].
  """
  batch_size = observation.shape[0]
  # The candidates of an observation stand next to each other.
  repeated = jnp.repeat(observation, num_candidates, axis=0)
  action = diffusion.sample(
    key,
    lambda noisy_action, step: networks.denoise(
      denoiser_params, repeated, noisy_action, step
    ),
    schedule,
    (batch_size * num_candidates, networks.action_size),
    temperature=temperature,
  )
  if num_candidates == 1:
    return action
  q_values = networks.criticize(critic_params, repeated, action)
  q_value = jnp.min(q_values, axis=0).reshape(batch_size, num_candidates)
  candidates = action.reshape(batch_size, num_candidates, -1)
  return candidates[jnp.arange(batch_size), jnp.argmax(q_value, axis=1)]


def add_exploration_noise(
  key: jax.Array, action: jax.Array, standard_deviation: float
) -> jax.Array:
  """Adds Gaussian noise to actions and clips them to [-1, 1]."""
  noise = standard_deviation * jax.random.normal(key, action.shape)
  return jnp.clip(action + noise, -1.0, 1.0)


def make_policy(
  networks: QSMNetworks, config: QSMConfig, evaluation: bool = False
) -> Policy:
  """Makes the pure function that acts.

  While nothing has been learnt (`params.steps` is 0), actions are uniformly
  random, except in evaluation.

  Args:
    networks: the denoiser and the critics.
    config: schedule, temperatures, candidates and exploration noise.
    evaluation: whether to act without exploration noise, and with the
      config's denoiser, temperature and candidates for evaluation.

  Returns:
    policy(params, key, observation [B, ...]) -> action [B, A] in [-1, 1]; the
    key is consumed, and params are those of `LearnerCore.policy_params`.
  """
  schedule = diffusion.make_schedule(
    config.noise_schedule, config.num_denoising_steps
  )
  if evaluation:
    use_target_denoiser = config.evaluate_target_denoiser
    temperature = config.evaluation_temperature
    num_candidates = config.num_evaluation_candidates
  else:
    use_target_denoiser = False
    temperature = config.sampling_temperature
    num_candidates = config.num_action_candidates

  def policy(
    params: PolicyParams, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    sample_key, noise_key, random_key = jax.random.split(key, 3)
    action = sample_action(
      networks,
      schedule,
      params.target_denoiser if use_target_denoiser else params.denoiser,
      params.critics,
      sample_key,
      observation,
      num_candidates=num_candidates,
      temperature=temperature,
    )
    if evaluation:
      return action
    action = add_exploration_noise(noise_key, action, config.exploration_noise)
    random_action = jax.random.uniform(
      random_key, action.shape, minval=-1.0, maxval=1.0
    )
    return jnp.where(params.steps == 0, random_action, action)

  return policy
