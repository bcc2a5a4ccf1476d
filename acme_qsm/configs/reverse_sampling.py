"""What methods can be told that learn from reverse samples."""

import dataclasses
from typing import Literal

from acme_qsm import configuration
from acme_qsm.configs.weights import WeightsConfig
from acme_qsm.diffusion import betas

NoisyActionSource = Literal["policy", "replay", "uniform", "gaussian"]
ReverseSampling = Literal["truncated", "clipped", "unbounded"]


@dataclasses.dataclass(frozen=True)
class ReverseSamplingConfig(WeightsConfig):
  """What methods can be told that learn from reverse samples.

  Attributes:
    noisy_action_source: where the noisy actions a_t come from at which the
      denoiser is trained; any has the same optimum. "replay": replay's actions,
      noised. "policy": fresh actions of the policy, chosen and noised as those
      of the critics' target, then noised to a_t. "uniform" and "gaussian":
      drawn alike at each noise level.
    noisy_action_scale: the bound of uniform noisy actions, the standard
      deviation of Gaussian ones.
    num_reverse_samples: K, clean actions drawn for each noisy action. Each is
      one evaluation of the critics.
    reverse_sampling: how they are kept in the box [-1, 1]. "truncated": their
      noises are drawn from the normal truncated to it. "clipped": the critics
      are asked at the clipped action, which biases the weights. "unbounded":
      not at all.
  """

  sampler: betas.TransitionName = "posterior"
  noisy_action_source: NoisyActionSource = "replay"
  noisy_action_scale: float = configuration.positive(1.0)
  num_reverse_samples: int = configuration.positive(16)
  reverse_sampling: ReverseSampling = "truncated"

  def __post_init__(self):
    super().__post_init__()
    self.check_num_samples("num_reverse_samples")
