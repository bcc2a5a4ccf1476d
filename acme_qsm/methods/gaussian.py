"""Soft actor-critic (Haarnoja et al., 2018, arXiv:1812.05905).

A Gaussian policy, squashed into the box, on the critics that all methods have:
what a diffusion policy is to be compared with.
"""

import jax
import jax.numpy as jnp

from acme_qsm import losses
from acme_qsm import types
from acme_qsm.configs.gaussian import GaussianConfig
from acme_qsm.configs.gaussian import PRESETS
from acme_qsm.core import acting
from acme_qsm.core import actions
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.core.training import Context
from acme_qsm.core.training import NextValueBonus
from acme_qsm.core.training import PolicyLoss
from acme_qsm.networks import GaussianNetworks
from acme_qsm.networks import make_gaussian_networks


def draw(
  networks: GaussianNetworks,
  params: types.Params,
  key: jax.Array,
  observation: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Draws actions through which the gradient flows.

  Args:
    networks: the policy.
    params: its parameters.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.

  Returns:
    Actions [B, A] in [-1, 1] and their log-densities [B].
  """
  mean, log_std = networks.propose(params, observation)
  noise = jax.random.normal(key, mean.shape)
  action = mean + jnp.exp(log_std) * noise
  log_prob = losses.squashed_log_prob(action, mean, log_std)
  return jnp.tanh(action), log_prob


def make_sampler(
  networks: GaussianNetworks, config: GaussianConfig, evaluation: bool = False
) -> actions.Sampler:
  """Makes what draws actions, or in evaluation takes the mode's."""

  def sampler(
    params: types.Params, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    if evaluation and config.evaluate_mode:
      return jnp.tanh(networks.propose(params, observation).mean)
    return draw(networks, params, key, observation)[0]

  return sampler


def make_policy_loss(
  networks: GaussianNetworks, config: GaussianConfig
) -> PolicyLoss:
  """Makes the policy's loss.

  Args:
    networks: the policy and the critics.
    config: the temperature's target.

  Returns:
    The loss, a mean over the batch.
  """

  def policy_loss(
    params: types.Params,
    method_state: temperature_lib.Temperature,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[temperature_lib.Temperature, types.Metrics]]:
    observation = transitions.observation
    action, log_prob = draw(networks, params, keys[0], observation)
    q_value = critics.lowest_q_value(
      networks, context.critic_params, observation, action[:, None]
    )[:, 0]
    loss = jnp.mean(
      losses.soft_policy_loss(q_value, log_prob, method_state.value)
    )
    metrics = {
      "policy_loss": loss,
      "entropy": -jnp.mean(log_prob),
      "entropy_temperature": method_state.value,
    }

    def temperature_loss(log_value: jax.Array) -> jax.Array:
      per_example = losses.entropy_temperature_loss(
        log_value, log_prob, config.target_entropy * networks.action_size
      )
      return jnp.mean(per_example)

    method_state = temperature_lib.descend(
      method_state, temperature_loss, config.entropy_temperature_learning_rate
    )
    return loss, (method_state, metrics)

  return policy_loss


def make_next_value_bonus(
  networks: GaussianNetworks, config: GaussianConfig
) -> NextValueBonus | None:
  """Makes what the entropy of the next action adds to its value.

  Args:
    networks: the policy.
    config: whether it does.

  Returns:
    The bonus; None for nothing.
  """
  if not config.entropy_in_target:
    return None

  def bonus(
    params: types.Params,
    method_state: temperature_lib.Temperature,
    key: jax.Array,
    observation: jax.Array,
  ) -> jax.Array:
    # Of a fresh action, which has the same mean: of the target's own, which is
    # squashed already, the log-density would be inexact at the box's ends.
    _, log_prob = draw(networks, params, key, observation)
    return -method_state.value * log_prob

  return bonus


def make_learner_core(
  networks: GaussianNetworks, config: GaussianConfig
) -> LearnerCore:
  """Makes the learner: an off-policy actor-critic."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=make_policy_loss(networks, config),
    sampler=make_sampler(networks, config),
    init_method_state=lambda: temperature_lib.start(
      config.entropy_temperature, config.entropy_temperature_learning_rate
    ),
    next_value_bonus=make_next_value_bonus(networks, config),
  )


GAUSSIAN = Method(
  config=GaussianConfig,
  make_learner_core=make_learner_core,
  make_policy=acting.policy_of(make_sampler),
  make_networks=make_gaussian_networks,
  presets=PRESETS,
)
"""Soft actor-critic."""
