"""Diffusion policy mirror descent (Ma et al., 2025, arXiv:2502.00361).

The policy becomes the density proportional to pi_old exp(Q / temperature): its
own actions are denoised, weighted by the critics. No gradient flows through the
sampler or the critics.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_qsm import losses
from acme_qsm import types
from acme_qsm.configs.dpmd import DPMDConfig
from acme_qsm.configs.dpmd import PRESETS
from acme_qsm.core import actions
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import denoising
from acme_qsm.core import normalization
from acme_qsm.core import sampling
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core import updates
from acme_qsm.core import weights
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.core.training import Context
from acme_qsm.core.training import PolicyLoss
from acme_qsm.networks import DiffusionNetworks


class DPMDState(NamedTuple):
  """What mirror descent holds beside the shared state.

  Attributes:
    temperature: the weights' temperature.
    q_mean: [] running mean of Q, without bias; 0 before the first update.
    q_variance: [] running variance of Q, likewise.
  """

  temperature: temperature_lib.Temperature
  q_mean: jax.Array
  q_variance: jax.Array


def make_policy_loss(
  networks: DiffusionNetworks, config: DPMDConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: how many actions are weighed, and how.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  schedule = sampling.make_schedule(networks, config)
  sampler = sampling.make_sampler(networks, config)

  def policy_loss(
    params: types.Params,
    method_state: DPMDState,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[DPMDState, types.Metrics]]:
    observation = transitions.next_observation
    action = context.next_action[:, None]
    if config.num_policy_samples > 1:
      sample_key, noise_key = jax.random.split(keys[0])
      action = actions.draw_several(
        sampler,
        jax.lax.stop_gradient(params),
        sample_key,
        observation,
        config.num_policy_samples,
      )
      # The noise of the target's actions. Without it, the policy would lose its
      # spread: it learns its own samples, and the sampler draws them narrower
      # than what the denoiser has learned.
      noise = actions.scale_noise(
        config.target_action_noise, noise_scale(config, method_state)
      )
      action = actions.add_exploration_noise(noise_key, action, noise)
    q_value = critics.lowest_q_value(
      networks, context.critic_params, observation, action
    )
    q_value, method_state = standardize(
      config, method_state, q_value, context.updates
    )
    temperature = method_state.temperature
    if config.weights == "normalized_exponential":
      weight = losses.exponential_weights(q_value, temperature.value)
      normalized = losses.self_normalized_weights(q_value, temperature.value)
    else:
      weight = weights.weigh(config, q_value, temperature.value)
      normalized = weights.normalized_weights(
        config, q_value, temperature.value
      )
    loss, steps = denoising.weighted_loss(
      networks, schedule, params, keys[1], observation, action, weight
    )
    metrics = {
      "denoiser_loss": loss,
      **weights.measure(
        temperature, weight, normalized, steps, schedule.num_steps
      ),
    }
    temperature = weights.update_temperature(
      config, temperature, normalized, context.updates
    )
    return loss, (method_state._replace(temperature=temperature), metrics)

  return policy_loss


def standardize(
  config: DPMDConfig,
  method_state: DPMDState,
  q_value: jax.Array,
  num_updates: jax.Array,
) -> tuple[jax.Array, DPMDState]:
  """(Q - running mean) / running deviation, clipped, where weights want that.

  Args:
    config: whether, and how.
    method_state: the running moments.
    q_value: [B, K] Q-values, of scaled rewards.
    num_updates: [] updates made before this one.

  Returns:
    The same [B, K], standardised where weights are normalised, and the new
    moments.
  """
  if config.weights != "normalized_exponential":
    return q_value, method_state
  mean, variance = normalization.mix_moments(
    method_state.q_mean,
    method_state.q_variance,
    jnp.ravel(q_value),
    updates.newest_share(config.q_statistics_decay, num_updates),
  )
  standardized = losses.standardize(
    q_value, mean, jnp.sqrt(variance), config.q_value_clip
  )
  return standardized, method_state._replace(q_mean=mean, q_variance=variance)


def init_state(config: DPMDConfig) -> DPMDState:
  """The state before the first update."""
  temperature = weights.init_temperature(config)
  return DPMDState(temperature, jnp.zeros(()), jnp.zeros(()))


def noise_scale(
  config: DPMDConfig, method_state: DPMDState
) -> jax.Array | None:
  """The factor [] of the noise on actions; None for none."""
  return weights.noise_scale(config, method_state.temperature)


def make_learner_core(
  networks: DiffusionNetworks, config: DPMDConfig
) -> LearnerCore:
  """Makes the learner: an off-policy actor-critic."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=make_policy_loss(networks, config),
    sampler=sampling.make_sampler(networks, config),
    init_method_state=lambda: init_state(config),
    noise_scale=lambda state: noise_scale(config, state),
  )


DPMD = Method(
  config=DPMDConfig,
  make_learner_core=make_learner_core,
  make_policy=sampling.make_policy,
  presets=PRESETS,
)
"""Diffusion policy mirror descent."""
