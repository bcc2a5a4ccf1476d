"""The critics' update: their target's action, and their loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core.config import ActorCriticConfig
from acme_qsm.networks.critics import expected_value
from acme_qsm.networks.critics import make_atoms

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


def make_critic_loss(
  networks: acting.Networks, config: ActorCriticConfig
) -> CriticLoss:
  """Makes the loss of critics that share the lowest target.

  Args:
    networks: the critics.
    config: their head, the discount and the rewards' scale.

  Returns:
    The loss, a mean over the batch: `losses.clipped_double_q_loss`, or the same
    for the distributions that other heads predict.

  Raises:
    ValueError: if the networks have no such head.
  """
  per_example = _make_head_loss(config)
  outputs = (
    networks.criticize
    if config.critic_head == "scalar"
    else networks.critic_outputs
  )
  if outputs is None:
    raise ValueError(
      f"critic_head={config.critic_head!r} needs networks with critic_outputs."
    )

  def critic_loss(
    params: types.Params,
    target_params: types.Params,
    transitions: types.Transition,
    next_action: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    found = outputs(params, transitions.observation, transitions.action)
    loss = per_example(
      found,
      config.reward_scale * transitions.reward,
      config.discount * transitions.discount,
      outputs(target_params, transitions.next_observation, next_action),
    )
    return jnp.mean(loss), expected_value(config, found)

  return critic_loss


def _make_head_loss(config: ActorCriticConfig) -> Callable[..., jax.Array]:
  """(outputs, reward, discount, next outputs) -> loss [B]."""
  if config.critic_head == "scalar":
    return losses.clipped_double_q_loss
  if config.critic_head == "quantile":
    return losses.quantile_double_q_loss
  loss = (
    losses.categorical_double_q_loss
    if config.categorical_target == "projection"
    else losses.hl_gauss_double_q_loss
  )
  atoms = jnp.asarray(make_atoms(config))
  return lambda outputs, *rest: loss(outputs, atoms, *rest)


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
