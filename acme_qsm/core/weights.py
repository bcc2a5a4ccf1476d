"""Weights of samples by the critics, and how their temperature moves.

For methods whose denoiser learns samples weighted by exp(Q / temperature).
"""

import math

import jax
import jax.numpy as jnp

from acme_qsm import losses
from acme_qsm import types
from acme_qsm.configs.weights import REFERENCE_ENTROPY
from acme_qsm.configs.weights import WeightsConfig
from acme_qsm.core import temperature as temperature_lib


def init_temperature(config: WeightsConfig) -> temperature_lib.Temperature:
  """The temperature before the first update."""
  return temperature_lib.start(
    config.boltzmann_temperature, config.temperature_learning_rate
  )


def weigh(
  config: WeightsConfig, q_value: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Weighs samples by the critics.

  Args:
    config: how.
    q_value: [B, K] Q-values, of scaled rewards.
    temperature: [] the temperature.

  Returns:
    Weights [B, K]: see `losses.self_normalized_weights` and
    `losses.exponential_weights`.
  """
  if config.weights == "normalized_exponential":
    return losses.exponential_weights(
      q_value, temperature, normalize=True, clip=config.q_value_clip
    )
  q_value = q_value / config.reward_scale
  if config.weights == "exponential":
    return losses.exponential_weights(q_value, temperature)
  return losses.self_normalized_weights(q_value, temperature)


def normalized_weights(
  config: WeightsConfig, q_value: jax.Array, temperature: jax.Array
) -> jax.Array:
  """The weights of each example, of whichever kind, divided by their sum.

  They are finite where exponential weights are all 0 or infinite in float32.

  Args:
    config: how samples are weighed.
    q_value: [B, K] Q-values, of scaled rewards.
    temperature: [] the temperature.

  Returns:
    Weights [B, K] that sum to one over the K samples.
  """
  if config.weights == "normalized_exponential":
    q_value = losses.normalize_q_value(q_value, config.q_value_clip)
  else:
    q_value = q_value / config.reward_scale
  return losses.self_normalized_weights(q_value, temperature)


def update_temperature(
  config: WeightsConfig,
  temperature: temperature_lib.Temperature,
  normalized: jax.Array,
  updates: jax.Array,
) -> temperature_lib.Temperature:
  """Moves the temperature as the configuration says.

  Args:
    config: how, and how often.
    temperature: the temperature.
    normalized: [B, K] the normalized weights at that temperature.
    updates: [] updates of the policy made before this one.

  Returns:
    The next temperature.
  """
  if config.temperature_update == "constant":
    return temperature

  def loss(log_value: jax.Array) -> jax.Array:
    if config.temperature_update == "target_kl":
      # The dual, with the logarithm in the temperature's place. The dual's own
      # gradient has the temperature as a factor: Adam remembers the large
      # gradients of a high temperature, and lowers it three times as slowly.
      per_example = losses.temperature_loss(
        log_value, normalized, config.target_kl
      )
      return jnp.mean(per_example)
    # The entropy of the exploration noise is driven to a target. It is that of
    # one action dimension: Adam makes the same steps for that of all.
    deviation = config.exploration_noise * temperature.value
    entropy = 0.5 * jnp.log(2.0 * jnp.pi * jnp.e * jnp.square(deviation))
    return log_value * (entropy - REFERENCE_ENTROPY)

  moved = temperature_lib.descend(
    temperature, loss, config.temperature_learning_rate
  )
  log_value = jnp.maximum(moved.log_value, math.log(config.min_temperature))
  is_due = (updates + 1) % config.temperature_update_period == 0
  return jax.tree.map(
    lambda new, old: jnp.where(is_due, new, old),
    moved._replace(log_value=log_value),
    temperature,
  )


def noise_scale(
  config: WeightsConfig, temperature: temperature_lib.Temperature
) -> jax.Array | None:
  """The factor of the noise on actions: the temperature, or none."""
  return temperature.value if config.temperature_scales_noise else None


def measure(
  temperature: temperature_lib.Temperature,
  weight: jax.Array,
  normalized: jax.Array,
  steps: jax.Array,
  num_steps: int,
) -> types.Metrics:
  """How uneven weights are, over all noise levels and by thirds of them.

  Args:
    temperature: the temperature.
    weight: [B, K] the weights.
    normalized: [B, K] the normalized weights.
    steps: [B] the examples' denoising steps.
    num_steps: T, how many of these there are.

  Returns:
    The temperature, and of the weights the effective sample size, the largest
    one, which may be infinite, and the divergence from equal ones; that of a
    third without examples is 0.
  """
  kl = losses.weight_kl(normalized)
  third = 3 * steps // num_steps

  def mean_of_third(number: int) -> jax.Array:
    among = third == number
    return jnp.sum(kl * among) / jnp.maximum(jnp.sum(among), 1)

  return {
    "boltzmann_temperature": temperature.value,
    "effective_sample_size": jnp.mean(losses.effective_sample_size(normalized)),
    # Of equal weights that sum to one, this is one.
    "largest_weight": jnp.max(weight) * weight.shape[1],
    "weight_kl": jnp.mean(kl),
    "weight_kl_low_noise": mean_of_third(0),
    "weight_kl_mid_noise": mean_of_third(1),
    "weight_kl_high_noise": mean_of_third(2),
  }
