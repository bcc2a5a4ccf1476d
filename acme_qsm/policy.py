"""Acting: from the learner's parameters and observations to actions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from acme_qsm import diffusion
from acme_qsm.config import QSMConfig
from acme_qsm.learner_core import add_exploration_noise
from acme_qsm.learner_core import PolicyParams
from acme_qsm.networks import QSMNetworks

Policy = Callable[[PolicyParams, jax.Array, jax.Array], jax.Array]
"""(params, key, observation [B, ...]) -> action [B, A] in [-1, 1]."""


def make_policy(
  networks: QSMNetworks, config: QSMConfig, evaluation: bool = False
) -> Policy:
  """Makes the pure function that acts.

  It draws candidate actions by the reverse process and takes the one that the
  lowest of the critics values most (with one candidate, no critic is asked).
  While nothing has been learnt (`params.steps` is 0), actions are uniformly
  random, except in evaluation.

  Args:
    networks: the denoiser and the critics.
    config: schedule, temperatures, candidates and exploration noise.
    evaluation: whether to act without exploration noise, and with the
      config's temperature and candidates for evaluation.

  Returns:
    policy(params, key, observation [B, ...]) -> action [B, A] in [-1, 1]; the
    key is consumed, and params are those of `LearnerCore.policy_params`.
  """
  schedule = diffusion.make_schedule(
    config.noise_schedule, config.num_denoising_steps
  )
  if evaluation:
    temperature = config.evaluation_temperature
    num_candidates = config.num_evaluation_candidates
  else:
    temperature = config.sampling_temperature
    num_candidates = config.num_action_candidates

  def policy(
    params: PolicyParams, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    sample_key, noise_key, random_key = jax.random.split(key, 3)
    batch_size = observation.shape[0]
    # The candidates of an observation stand next to each other.
    repeated = jnp.repeat(observation, num_candidates, axis=0)
    action = diffusion.sample(
      sample_key,
      lambda noisy_action, step: networks.denoise(
        params.denoiser, repeated, noisy_action, step
      ),
      schedule,
      (batch_size * num_candidates, networks.action_size),
      temperature=temperature,
    )
    if num_candidates > 1:
      q_values = networks.criticize(params.critics, repeated, action)
      q_value = jnp.min(q_values, axis=0).reshape(batch_size, num_candidates)
      candidates = action.reshape(batch_size, num_candidates, -1)
      best = jnp.argmax(q_value, axis=1)
      action = candidates[jnp.arange(batch_size), best]
    if not evaluation:
      action = add_exploration_noise(
        noise_key, action, config.exploration_noise
      )
      random_action = jax.random.uniform(
        random_key, action.shape, minval=-1.0, maxval=1.0
      )
      action = jnp.where(params.steps == 0, random_action, action)
    return action

  return policy
