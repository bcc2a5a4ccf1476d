"""What methods can be told that weigh samples by the critics."""

import dataclasses
import math
from typing import Literal

from acme_qsm import configuration
from acme_qsm.configs.diffusion import DiffusionConfig

TemperatureUpdate = Literal["constant", "target_kl", "reference_decay"]
Weights = Literal["self_normalized", "exponential", "normalized_exponential"]

REFERENCE_ENTROPY = -0.9
"""Of the reference's decay, per action dimension."""
# Adam squares gradients. The square of exp of this leaves room in float32 for
# what it is multiplied by.
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
    deviation = math.exp(REFERENCE_ENTROPY) / math.sqrt(2 * math.pi * math.e)
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
