"""Soft diffusion actor-critic (Ma et al., 2025, arXiv:2502.00361).

Reverse sampling score matching: for a noisy action, clean actions that it may
have come from are drawn, and the denoiser learns their noises, weighted by
exp(Q / temperature) of the clean actions. No gradient flows through the sampler
or the critics.
"""

import jax
import jax.numpy as jnp

from acme_qsm import losses
from acme_qsm import types
from acme_qsm.configs.sdac import PRESETS
from acme_qsm.configs.sdac import SDACConfig
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import reverse_sampling
from acme_qsm.core import sampling
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core import weights
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.core.training import Context
from acme_qsm.core.training import PolicyLoss
from acme_qsm.networks import DiffusionNetworks


def make_policy_loss(
  networks: DiffusionNetworks, config: SDACConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: the noisy actions, the reverse samples and their weights.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  draw = reverse_sampling.make_clean_action_sampler(networks, config)

  def policy_loss(
    params: types.Params,
    method_state: temperature_lib.Temperature,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[temperature_lib.Temperature, types.Metrics]]:
    observation = transitions.observation
    samples = draw(params, method_state, transitions, keys, context)
    q_value = critics.lowest_q_value(
      networks, context.critic_params, observation, samples.clean_action
    )
    weight = weights.weigh(config, q_value, method_state.value)
    normalized = weights.normalized_weights(config, q_value, method_state.value)
    noise_prediction = networks.denoise(
      params, observation, samples.noisy_action, samples.steps
    )
    loss = jnp.mean(
      losses.reverse_sampling_score_matching_loss(
        noise_prediction, samples.noise, weight
      )
    )
    metrics = {
      "denoiser_loss": loss,
      **weights.measure(
        method_state,
        weight,
        normalized,
        samples.steps,
        config.num_denoising_steps,
      ),
    }
    method_state = weights.update_temperature(
      config, method_state, normalized, context.updates
    )
    return loss, (method_state, metrics)

  return policy_loss


def make_learner_core(
  networks: DiffusionNetworks, config: SDACConfig
) -> LearnerCore:
  """Makes the learner: an off-policy actor-critic."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=make_policy_loss(networks, config),
    sampler=sampling.make_sampler(networks, config),
    init_method_state=lambda: weights.init_temperature(config),
    noise_scale=lambda state: weights.noise_scale(config, state),
  )


SDAC = Method(
  config=SDACConfig,
  make_learner_core=make_learner_core,
  make_policy=sampling.make_policy,
  presets=PRESETS,
)
"""Soft diffusion actor-critic."""
