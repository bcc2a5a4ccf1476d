"""What soft diffusion actor-critic can be told."""

import dataclasses

from acme_qsm import configuration
from acme_qsm.configs import presets
from acme_qsm.configs.reverse_sampling import ReverseSamplingConfig


@dataclasses.dataclass(frozen=True)
class SDACConfig(ReverseSamplingConfig):
  """Everything that soft diffusion actor-critic can be told."""

  policy_update_period: int = configuration.positive(2)


PRESETS: dict[str, SDACConfig] = {
  "default": SDACConfig(),
  "paper": SDACConfig(
    **presets.PAPER,
    noisy_action_source="policy",
    num_reverse_samples=1,
    reverse_sampling="clipped",
    weights="normalized_exponential",
    policy_update_period=1,
    temperature_update_period=250,
  ),
  "reference": SDACConfig(
    **presets.REFERENCE,
    **presets.DECAYING_TEMPERATURE,
    noisy_action_source="policy",
    num_reverse_samples=64,
    reverse_sampling="clipped",
    weights="self_normalized",
    temperature_update_period=125,
  ),
}
