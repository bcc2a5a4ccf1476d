"""Q-score matching (Psenka et al., 2024, https://arxiv.org/abs/2312.11752).

The denoiser is matched to the critics' action gradient at noised actions from
replay (algorithm 1 and appendix A, with the official implementation's choices).
No gradient flows through the sampler.

With `langevin`, the policy is what the paper's theory is of: Langevin dynamics
(eq. 6) of one score for all steps, matched at replay's actions as they are.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any
from typing import Literal
from typing import NamedTuple

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import critics
from acme_qsm.core import sampling
from acme_qsm.core.config import DiffusionConfig
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.core.updates import move_running_mean
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp
from acme_qsm.methods import presets

if typing.TYPE_CHECKING:
  from acme_qsm.networks import DiffusionNetworks

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
  action_gradient_critic: critics.GradientCritic = "mean"
  action_gradient_clip: float | None = configuration.positive(5.0)
  langevin: bool = False


class QSMState(NamedTuple):
  """What training by Q-score matching holds beside the shared state.

  Attributes:
    action_gradient_square: [] running mean square of the critics' action
      gradient, biased towards its start at 0 (as Adam's moments are).
  """

  action_gradient_square: jax.Array


def make_policy_loss(
  networks: DiffusionNetworks, config: QSMConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: the target, its scale and its clip.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  schedule = sampling.make_schedule(networks, config)

  def policy_loss(
    params: types.Params,
    method_state: QSMState,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[QSMState, types.Metrics]]:
    step_key, noise_key = keys
    observation, action = transitions.observation, transitions.action
    scale = 1.0
    if config.langevin:
      # Half of it is in a Langevin step, all of it in a denoising step.
      scale = 2.0
      # The score of clean actions, as if it were of pure noise: not shrunk.
      noisy_action = action
      steps = jnp.zeros(action.shape[:1], jnp.int32)
      alpha_bar = jnp.zeros(action.shape[:1])
    else:
      steps = jax.random.randint(
        step_key, action.shape[:1], 0, schedule.num_steps
      )
      noisy_action = diffusion.add_noise(
        schedule, action, jax.random.normal(noise_key, action.shape), steps
      )
      alpha_bar = schedule.alpha_bars[steps]
    gradient = critics.action_gradient(
      networks,
      context.critic_params,
      observation,
      noisy_action,
      config.action_gradient_critic,
    )
    scaled_gradient, size, method_state = scale_action_gradient(
      config, method_state, gradient, context.updates
    )
    noise_prediction = networks.denoise(
      params, observation, noisy_action, steps
    )
    if config.score_target == "action_gradient":
      loss = losses.q_score_matching_loss(
        noise_prediction, scaled_gradient, scale
      )
    else:
      loss = losses.boltzmann_score_matching_loss(
        noise_prediction,
        scaled_gradient,
        noisy_action,
        alpha_bar,
        scale,
      )
    loss = jnp.mean(loss)
    return loss, (
      method_state,
      {"denoiser_loss": loss, "action_gradient_size": size},
    )

  return policy_loss


def scale_action_gradient(
  config: QSMConfig,
  method_state: QSMState,
  gradient: jax.Array,
  updates: jax.Array,
) -> tuple[jax.Array, jax.Array, QSMState]:
  """Scales, perhaps normalises, and clips the critics' action gradient.

  Args:
    config: how.
    method_state: the running mean square.
    gradient: [B, A] the action gradient.
    updates: [] updates made before this one.

  Returns:
    The scaled gradient [B, A], its running root mean square [] before that, and
    the new running mean square.
  """
  square, mean_square = move_running_mean(
    method_state.action_gradient_square,
    jnp.mean(jnp.square(gradient)),
    config.action_gradient_decay,
    updates,
  )
  size = jnp.sqrt(mean_square)
  scale = jnp.float32(config.q_score_scale)
  if config.normalize_action_gradient:
    # A critic that is flat everywhere says nothing: leave it at that.
    scale /= jnp.maximum(size, 1e-8)
  scaled = scale * gradient
  if config.action_gradient_clip is not None:
    scaled = jnp.clip(
      scaled, -config.action_gradient_clip, config.action_gradient_clip
    )
  return scaled, size, QSMState(square)


def make_sampler(
  networks: DiffusionNetworks, config: QSMConfig, evaluation: bool = False
) -> acting.Sampler:
  """Makes what draws actions: the reverse process, or Langevin dynamics."""
  make = (
    sampling.make_langevin_sampler if config.langevin else sampling.make_sampler
  )
  return make(networks, config, evaluation)


_PUBLISHED: dict[str, Any] = {
  "num_denoising_steps": 5,
  "score_target": "action_gradient",
  "q_score_scale": 50.0,
  "action_gradient_clip": None,
  "evaluate_target_denoiser": False,
}


QSM = Method(
  config=QSMConfig,
  make_policy_loss=make_policy_loss,
  make_sampler=make_sampler,
  metrics=("denoiser_loss", "action_gradient_size"),
  init_method_state=lambda config: QSMState(jnp.zeros(())),
  presets={
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
  },
)
"""Q-score matching."""
