"""What Q-weighted variational policy optimisation can be told."""

import dataclasses

from acme_qsm import configuration
from acme_qsm.configs.diffusion import DiffusionConfig
from acme_qsm.diffusion import betas


@dataclasses.dataclass(frozen=True)
class QVPOConfig(DiffusionConfig):
  """Everything that Q-weighted variational policy optimisation can be told.

  Attributes:
    num_policy_samples: K, actions of the policy for each observation, of which
      the best is denoised; at least 2.
    num_random_actions: uniformly random actions for each observation that are
      denoised as well; 0 for none.
    random_action_weight: their weight, as a share of the best action's, before
      the first update.
    random_action_weight_end: the same after `random_action_steps`.
    random_action_steps: updates of the policy over which it changes, linearly.
  """

  sampler: betas.TransitionName = "posterior"
  num_policy_samples: int = configuration.checked(
    4, lambda value: value >= 2, "at least 2"
  )
  num_random_actions: int = configuration.non_negative(2)
  random_action_weight: float = configuration.non_negative(0.1)
  random_action_weight_end: float = configuration.non_negative(0.01)
  random_action_steps: int = configuration.positive(100_000)


PRESETS: dict[str, QVPOConfig] = {
  "default": QVPOConfig(),
  # The official implementation's, as far as can be: see README.
  "official": QVPOConfig(
    policy_learning_rate=1e-4,
    num_denoising_steps=20,
    noise_schedule="cosine",
    num_policy_samples=64,
    num_random_actions=10,
    random_action_weight=0.02,
    random_action_weight_end=0.002,
    random_action_steps=1_000_000,
    num_action_candidates=4,
    num_target_candidates=4,
    num_evaluation_candidates=32,
    evaluate_target_denoiser=False,
    exploration_noise=0.0,
    target_action_noise=0.0,
    n_step=1,
  ),
}
