"""Weights of samples by the critics, and how their temperature moves.

For methods whose denoiser learns samples weighted by exp(Q / temperature).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from acme_qsm import configuration
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core.config import DiffusionConfig
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp

TemperatureUpdate = Literal["constant", "target_kl", "reference_decay"]
Weights = Literal["self_normalized", "exponential", "normalized_exponential"]

METRICS = (
  "boltzmann_temperature",
  "effective_sample_size",
  "largest_weight",
  "weight_kl",
  "weight_kl_low_noise",
  "weight_kl_mid_noise",
  "weight_kl_high_noise",
)
"""What `measure` reports, in the order of display."""

# Of the reference's decay, per action dimension.
_REFERENCE_ENTROPY = -0.9
# Adam squares a gradient of exp of this, which is as large as float32 holds
# with room for what it is multiplied by.
_LARGEST_EXPONENT = 40.0


@dataclasses.dataclass(frozen=True)
class WeightsConfig(DiffusionConfig):
  """What methods can be told that weigh samples by the critics.

  Attributes:
    weights: "self_normalized": softmax over the K samples. "exponential":
      exp(Q / temperature) / K. "normalized_exponential": the same, Q less the
      batch's mean, divided by its standard deviation and clipped.
    q_value_clip: the largest size of a normalised Q: without a bound, one
      outlier of a batch would be beyond what exp can take. At most 40 times the
      lowest temperature.
    boltzmann_temperature: of the weights, where it starts; in units of the
      unscaled return, or in standard deviations of Q where that is normalised.
    temperature_update: how it moves. "constant". "target_kl": towards weights
      whose divergence from equal ones is `target_kl`; of self-normalised
      weights alone, as others need not sum to one. "reference_decay": as in
      the implementation of Ma et al. (2025), from wherever it starts to 0.0984
      divided by exploration_noise, whatever the policy does.
    target_kl: the divergence wanted, in nats, averaged over noise levels; below
      log K.
    temperature_learning_rate: Adam's, for the logarithm of the temperature.
    temperature_update_period: updates of the policy per update of the
      temperature.
    min_temperature: where the temperature stops falling.
    temperature_scales_noise: whether exploration_noise and target_action_noise
      are in units of the temperature.
  """

  weights: Weights = "self_normalized"
  q_value_clip: float = configuration.positive(3.0)
  boltzmann_temperature: float = configuration.positive(0.1)
  temperature_update: TemperatureUpdate = "target_kl"
  target_kl: float = configuration.positive(2.0)
  temperature_learning_rate: float = configuration.positive(3e-3)
  temperature_update_period: int = configuration.positive(1)
  min_temperature: float = configuration.positive(1e-3)
  temperature_scales_noise: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.boltzmann_temperature < self.min_temperature:
      self.fail(
        "boltzmann_temperature",
        f"at least min_temperature={self.min_temperature}",
      )
    if (
      self.temperature_update == "target_kl"
      and self.weights != "self_normalized"
    ):
      self.fail(
        "temperature_update",
        f"'constant' or 'reference_decay' for weights={self.weights!r}",
      )
    if self.temperature_update == "reference_decay" and not (
      self.exploration_noise > 0
    ):
      self.fail(
        "exploration_noise", "positive for temperature_update='reference_decay'"
      )
    most = _LARGEST_EXPONENT * self._lowest_temperature
    if self.weights == "normalized_exponential" and self.q_value_clip > most:
      self.fail(
        "q_value_clip",
        f"at most {most:.4g}, {_LARGEST_EXPONENT:.0f} times the lowest "
        "temperature, for weights='normalized_exponential'",
      )

  @property
  def _lowest_temperature(self) -> float:
    """What the temperature does not fall below, but for `target_kl`."""
    if self.temperature_update != "reference_decay":
      return self.boltzmann_temperature
    # Where the exploration noise has the reference's entropy.
    deviation = math.exp(_REFERENCE_ENTROPY) / math.sqrt(2 * math.pi * math.e)
    settled = max(self.min_temperature, deviation / self.exploration_noise)
    return min(self.boltzmann_temperature, settled)

  def check_num_samples(self, field: str) -> None:
    """Raises ValueError unless K samples can have such weights.

    Args:
      field: the name of the field that is K.
    """
    num_samples = getattr(self, field)
    if self.weights == "self_normalized" and num_samples == 1:
      self.fail(
        field,
        "at least 2 for weights='self_normalized' (one weight is always 1)",
      )
    limit = math.log(num_samples)
    if self.temperature_update == "target_kl" and self.target_kl >= limit:
      self.fail(
        "target_kl", f"below log K = {limit:.3f} for {field}={num_samples}"
      )


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
      # Of the logarithm in the temperature's place: the dual's own gradient has
      # the temperature for a factor, and Adam, which remembers the gradients of
      # a high one, takes three times as long down from there.
      per_example = losses.temperature_loss(
        log_value, normalized, config.target_kl
      )
      return jnp.mean(per_example)
    # The entropy of the exploration noise is driven to a target; per action
    # dimension, which is all the same to Adam.
    deviation = config.exploration_noise * temperature.value
    entropy = 0.5 * jnp.log(2.0 * jnp.pi * jnp.e * jnp.square(deviation))
    return log_value * (entropy - _REFERENCE_ENTROPY)

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
    `METRICS`; the largest weight may be infinite. The divergence of a third
    without examples is 0.
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
