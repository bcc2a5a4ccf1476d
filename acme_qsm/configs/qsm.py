"""What Q-score matching can be told."""

import dataclasses
from typing import Any
from typing import Literal

from acme_qsm import configuration
from acme_qsm.configs import presets
from acme_qsm.configs.actor_critic import GradientCritic
from acme_qsm.configs.diffusion import DiffusionConfig

ScoreTarget = Literal["boltzmann", "action_gradient"]


@dataclasses.dataclass(frozen=True)
class QSMConfig(DiffusionConfig):
  """Everything that Q-score matching can be told.

  Attributes:
    score_target: what the denoiser is matched to. "boltzmann": the critic's
      gradient with the pull of a standard normal prior, see
      `losses.boltzmann_score_matching_loss`. "action_gradient": the
      critic's gradient alone, as published.
    q_score_scale: scale of the critic's action gradient: alpha of the paper
      (M_q in the official implementation), kappa of the Boltzmann policy. With
      many steps, either sampler draws from a density proportional to
      exp(2 kappa Q), times N(0, I) where score_target is "boltzmann".
    normalize_action_gradient: whether to divide the action gradient by a
      running root mean square of itself, which makes q_score_scale independent
      of the rewards' scale, of the discount and of the task.
    action_gradient_decay: decay per update of that running mean, in [0, 1).
    action_gradient_critic: "mean" for the gradient of the critics' mean;
      "lowest" for that of the lowest critic at each action.
    action_gradient_clip: bound of each component of the scaled action gradient;
      None for no bound. What is beyond takes the action to the end of its range
      anyway, but would have most of the denoiser's loss.
    langevin: whether actions are drawn by Langevin dynamics
      (`sampling.make_langevin_sampler`), whose score is then matched at
      replay's actions without noise; there is no noise schedule, and no choice
      of `sampler`. The score is made of twice the scaled gradient, of which
      Langevin steps take half: as in eq. 6 of the paper, and the same policy as
      the reverse process'.
  """

  score_target: ScoreTarget = "boltzmann"
  q_score_scale: float = configuration.positive(10.0)
  normalize_action_gradient: bool = False
  action_gradient_decay: float = configuration.unit_interval(0.999, "[)")
  action_gradient_critic: GradientCritic = "mean"
  action_gradient_clip: float | None = configuration.positive(5.0)
  langevin: bool = False


_PUBLISHED: dict[str, Any] = {
  "num_denoising_steps": 5,
  "score_target": "action_gradient",
  "q_score_scale": 50.0,
  "action_gradient_clip": None,
  "evaluate_target_denoiser": False,
}


PRESETS: dict[str, QSMConfig] = {
  "default": QSMConfig(),
  # What the paper says, and where it is silent its implementation: the
  # critic's gradient alone as target, the sampler's action as it is.
  "paper": QSMConfig(**_PUBLISHED),
  "official": QSMConfig(
    **_PUBLISHED,
    policy_hidden_sizes=(512, 512),
    critic_hidden_sizes=(512, 512),
    policy_learning_rate_schedule="cosine",
    policy_learning_rate_steps=2_000_000,
    n_step=1,
  ),
  # Of the implementation of Ma et al. (2025), which is Langevin dynamics.
  "langevin": QSMConfig(
    **presets.LEARNING,
    langevin=True,
    score_target="action_gradient",
    # exp(Q): see q_score_scale.
    q_score_scale=0.5,
    action_gradient_critic="lowest",
    action_gradient_clip=None,
    reward_scale=0.2,
    exploration_noise=0.0,
    target_action_noise=0.0,
    evaluate_target_denoiser=False,
    num_action_candidates=32,
    num_target_candidates=32,
    num_evaluation_candidates=32,
  ),
}
