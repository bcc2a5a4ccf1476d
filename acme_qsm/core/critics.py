"""The critics' update: their target's action, and their loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core.config import ActorCriticConfig

CriticLoss = Callable[
  [types.Params, types.Params, types.Transition, jax.Array],
  tuple[jax.Array, jax.Array],
]
"""(critics' parameters, target critics', transitions, next action [B, A]) ->
(loss [], Q-values [N, B])."""


def draw_target_action(
  sampler: acting.Sampler,
  networks: acting.Networks,
  config: ActorCriticConfig,
  policy_params: types.Params,
  target_critic_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
) -> jax.Array:
  """Draws the actions at which the target critics are asked.

  Args:
    sampler: draws an action for each observation.
    networks: the critics.
    config: candidates and noise of the critics' target.
    policy_params: the policy's parameters.
    target_critic_params: choose among candidates.
    key: a PRNG key, consumed.
    observation: [B, ...] the transitions' next observations.

  Returns:
    Actions [B, A] in [-1, 1].
  """
  sample_key, noise_key = jax.random.split(key)
  action = acting.best_of(
    sampler,
    networks,
    policy_params,
    target_critic_params,
    sample_key,
    observation,
    num_candidates=config.num_target_candidates,
  )
  return acting.add_exploration_noise(
    noise_key, action, config.target_action_noise
  )


def make_clipped_double_q_loss(
  networks: acting.Networks, config: ActorCriticConfig
) -> CriticLoss:
  """Makes the loss of critics that learn by clipped double Q-learning.

  Args:
    networks: the critics.
    config: the discount and the rewards' scale.

  Returns:
    The loss, a mean over the batch: see `losses.clipped_double_q_loss`.
  """

  def critic_loss(
    params: types.Params,
    target_params: types.Params,
    transitions: types.Transition,
    next_action: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    q_values = networks.criticize(
      params, transitions.observation, transitions.action
    )
    loss = losses.clipped_double_q_loss(
      q_values,
      config.reward_scale * transitions.reward,
      config.discount * transitions.discount,
      networks.criticize(
        target_params, transitions.next_observation, next_action
      ),
    )
    return jnp.mean(loss), q_values

  return critic_loss


def action_gradient(
  networks: acting.Networks,
  critic_params: types.Params,
  observation: jax.Array,
  action: jax.Array,
) -> jax.Array:
  """The gradient of the critics' mean, which is the mean of their gradients.

  Args:
    networks: the critics.
    critic_params: their parameters.
    observation: [B, ...] observations.
    action: [B, A] actions.

  Returns:
    grad_a mean_i Q_i(s, a) [B, A].
  """

  def total_q_value(action: jax.Array) -> jax.Array:
    q_values = networks.criticize(critic_params, observation, action)
    return jnp.sum(jnp.mean(q_values, axis=0))

  return jax.grad(total_q_value)(action)
