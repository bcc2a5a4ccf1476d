"""What diffusion policy mirror descent can be told."""

import dataclasses

from acme_qsm import configuration
from acme_qsm.configs import presets
from acme_qsm.configs.weights import WeightsConfig
from acme_qsm.diffusion import betas


@dataclasses.dataclass(frozen=True)
class DPMDConfig(WeightsConfig):
  """Everything that diffusion policy mirror descent can be told.

  The actions that it weighs have target_action_noise, as the critics' target's
  have.

  Attributes:
    num_policy_samples: K, actions of the policy for each next observation that
      are weighed against each other. 1 takes the action of the critics' target,
      which is there anyway, and weighs it against those of other observations:
      for weights="normalized_exponential".
    q_statistics_decay: of weights that are normalised, decay per update of the
      running mean and variance of Q, in [0, 1).
  """

  sampler: betas.TransitionName = "posterior"
  exploration_noise: float = configuration.non_negative(0.2)
  target_action_noise: float = configuration.non_negative(0.2)
  num_policy_samples: int = configuration.positive(4)
  target_kl: float = configuration.positive(0.7)
  q_statistics_decay: float = configuration.unit_interval(0.999, "[)")

  def __post_init__(self):
    super().__post_init__()
    self.check_num_samples("num_policy_samples")


PRESETS: dict[str, DPMDConfig] = {
  "default": DPMDConfig(),
  # Of the implementation of Ma et al. (2025), with the brackets that its
  # standardisation lacks.
  "reference": DPMDConfig(
    **presets.REFERENCE,
    **presets.DECAYING_TEMPERATURE,
    exploration_noise=0.1,
    target_action_noise=0.1,
    num_policy_samples=1,
    weights="normalized_exponential",
    temperature_update_period=125,
  ),
}
