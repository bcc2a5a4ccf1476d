"""Actions of a policy: several, the critics' favourite, and with noise."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.core import critics
from acme_qsm.networks import CriticNetworks

Sampler: TypeAlias = Callable[[types.Params, jax.Array, jax.Array], jax.Array]
"""(policy's parameters, key, observation [B, ...]) -> action [B, A] in
[-1, 1]."""


def draw_several(
  sampler: Sampler,
  policy_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  num_samples: int,
) -> jax.Array:
  """Draws several actions of the policy for each observation.

  Args:
    sampler: draws an action for each observation.
    policy_params: the policy's parameters.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.
    num_samples: K, at least 1.

  Returns:
    Actions [B, K, A] in [-1, 1].
  """
  # The K rows of one observation are next to each other.
  repeated = jnp.repeat(observation, num_samples, axis=0)
  action = sampler(policy_params, key, repeated)
  return action.reshape(observation.shape[0], num_samples, -1)


def best_of(
  sampler: Sampler,
  networks: CriticNetworks,
  policy_params: types.Params,
  critic_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  *,
  num_candidates: int,
) -> jax.Array:
  """Draws candidate actions and takes the best.

  The best is what the lowest of the critics values most, as in the
  implementation of Ma et al. (2025); with one candidate, no critic is asked.

  Args:
    sampler: draws an action for each observation.
    networks: the critics.
    policy_params: the policy's parameters.
    critic_params: the critics' parameters; not read with one candidate.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.
    num_candidates: candidates per observation, at least 1.

  Returns:
    Actions [B, A] in [-1, 1].
  """
  candidates = draw_several(
    sampler, policy_params, key, observation, num_candidates
  )
  if num_candidates == 1:
    return candidates[:, 0]
  q_value = critics.lowest_q_value(
    networks, critic_params, observation, candidates
  )
  best = jnp.argmax(q_value, axis=1)
  return candidates[jnp.arange(observation.shape[0]), best]


def add_exploration_noise(
  key: jax.Array, action: jax.Array, standard_deviation: float | jax.Array
) -> jax.Array:
  """Adds Gaussian noise to actions and clips them to [-1, 1]."""
  noise = standard_deviation * jax.random.normal(key, action.shape)
  return jnp.clip(action + noise, -1.0, 1.0)


def scale_noise(
  standard_deviation: float, noise_scale: jax.Array | None
) -> float | jax.Array:
  """Scales an exploration noise by what the method says; None leaves it."""
  if noise_scale is None:
    return standard_deviation
  return noise_scale * standard_deviation


def draw_target_action(
  sampler: Sampler,
  networks: CriticNetworks,
  config: ActorCriticConfig,
  policy_params: types.Params,
  critic_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  noise_scale: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Draws the actions at which the target critics are asked.

  Args:
    sampler: draws an action for each observation.
    networks: the critics.
    config: candidates and noise of the critics' target.
    policy_params: the policy's parameters.
    critic_params: the target critics' parameters, which choose among
      candidates.
    key: a PRNG key, consumed.
    observation: [B, ...] the transitions' next observations.
    noise_scale: [] factor of the noise; None for none.

  Returns:
    Actions [B, A] in [-1, 1], and the same before the noise.
  """
  sample_key, noise_key = jax.random.split(key)
  action = best_of(
    sampler,
    networks,
    policy_params,
    critic_params,
    sample_key,
    observation,
    num_candidates=config.num_target_candidates,
  )
  noisy_action = add_exploration_noise(
    noise_key,
    action,
    scale_noise(config.target_action_noise, noise_scale),
  )
  return noisy_action, action
