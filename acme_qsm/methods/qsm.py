"""Q-score matching (Psenka et al., 2024, https://arxiv.org/abs/2312.11752).

The denoiser is matched to the critics' action gradient at noised actions from
replay (algorithm 1 and appendix A, with the official implementation's choices).
No gradient flows through the sampler.

With `langevin`, the policy is what the paper's theory is of: Langevin dynamics
(eq. 6) of one score for all steps, matched at replay's actions as they are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.configs.qsm import PRESETS
from acme_qsm.configs.qsm import QSMConfig
from acme_qsm.core import acting
from acme_qsm.core import actions
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import sampling
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.core.training import Context
from acme_qsm.core.training import PolicyLoss
from acme_qsm.core.updates import move_running_mean
from acme_qsm.networks import DiffusionNetworks


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
      # A Langevin step moves by half the score, a denoising step by all of it.
      scale = 2.0
      # Replay's actions as they are. With alpha_bar 0, the target is unscaled.
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
    # The gradient of a critic that is flat everywhere stays 0.
    scale /= jnp.maximum(size, 1e-8)
  scaled = scale * gradient
  if config.action_gradient_clip is not None:
    scaled = jnp.clip(
      scaled, -config.action_gradient_clip, config.action_gradient_clip
    )
  return scaled, size, QSMState(square)


def make_sampler(
  networks: DiffusionNetworks, config: QSMConfig, evaluation: bool = False
) -> actions.Sampler:
  """Makes what draws actions: the reverse process, or Langevin dynamics."""
  make = (
    sampling.make_langevin_sampler if config.langevin else sampling.make_sampler
  )
  return make(networks, config, evaluation)


def make_learner_core(
  networks: DiffusionNetworks, config: QSMConfig
) -> LearnerCore:
  """Makes the learner: an off-policy actor-critic."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=make_policy_loss(networks, config),
    sampler=make_sampler(networks, config),
    init_method_state=lambda: QSMState(jnp.zeros(())),
  )


QSM = Method(
  config=QSMConfig,
  make_learner_core=make_learner_core,
  make_policy=acting.policy_of(make_sampler),
  presets=PRESETS,
)
"""Q-score matching."""
