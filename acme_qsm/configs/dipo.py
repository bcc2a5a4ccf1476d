"""What DIPO can be told."""

import dataclasses

from acme_qsm import configuration
from acme_qsm.configs.diffusion import DiffusionConfig
from acme_qsm.diffusion import betas


@dataclasses.dataclass(frozen=True)
class DIPOConfig(DiffusionConfig):
  """Everything that DIPO can be told.

  Attributes:
    num_action_moves: N_a, steps of Adam that an action is moved by; each is one
      gradient of the critics.
    action_learning_rate: Adam's, about the size of each step in [-1, 1].
    keep_moved_actions: whether replay keeps them.
  """

  sampler: betas.TransitionName = "posterior"
  num_action_moves: int = configuration.positive(10)
  action_learning_rate: float = configuration.positive(0.03)
  keep_moved_actions: bool = True


PRESETS: dict[str, DIPOConfig] = {
  "default": DIPOConfig(),
  # The official implementation's, as far as can be: see README. It evaluates
  # without the sampler's noise.
  "official": DIPOConfig(
    policy_hidden_sizes=(256, 256, 256),
    critic_hidden_sizes=(256, 256, 256),
    num_denoising_steps=100,
    noise_schedule="cosine",
    num_action_moves=20,
    evaluate_target_denoiser=False,
    evaluation_temperature=0.0,
    exploration_noise=0.0,
    target_action_noise=0.0,
    n_step=1,
  ),
}
