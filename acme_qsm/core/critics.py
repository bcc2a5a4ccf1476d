"""The critics: their values, their gradient and their loss."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from acme_qsm import losses
from acme_qsm import networks as networks_lib
from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.configs.actor_critic import GradientCritic
from acme_qsm.core import atoms
from acme_qsm.networks import CriticNetworks

CriticLoss: TypeAlias = Callable[
  [types.Params, types.Params, types.Transition, jax.Array],
  tuple[jax.Array, types.Metrics],
]
"""(critics' parameters, target critics', transitions, next action [B, A]) ->
(loss [], metrics)."""


def lowest_q_value(
  networks: CriticNetworks,
  critic_params: types.Params,
  observation: jax.Array,
  action: jax.Array,
) -> jax.Array:
  """What the lowest of the critics says of several actions per observation.

  Args:
    networks: the critics.
    critic_params: their parameters.
    observation: [B, ...] observations.
    action: [B, K, A] actions.

  Returns:
    min_i Q_i(s, a_k) [B, K].
  """
  # Observations have no axis of their own for the K actions: what a critic
  # makes of them alone is computed once.
  q_values = jax.vmap(networks.q_values, in_axes=(None, None, 1), out_axes=2)(
    critic_params, observation, action
  )
  # The lowest is picked by its number. The gradient of a minimum goes to the
  # values that are equal to it: XLA may compute values twice and round them
  # differently, as it does with JAX 0.12, and then none of them is equal.
  numbers = jnp.arange(q_values.shape[0])[:, None, None]
  is_lowest = numbers == jnp.argmin(q_values, axis=0)
  return jnp.sum(jnp.where(is_lowest, q_values, 0.0), axis=0)


def action_gradient(
  networks: CriticNetworks,
  critic_params: types.Params,
  observation: jax.Array,
  action: jax.Array,
  critic: GradientCritic = "mean",
) -> jax.Array:
  """The critics' gradient with respect to actions.

  Args:
    networks: the critics.
    critic_params: their parameters.
    observation: [B, ...] observations.
    action: [B, A] actions.
    critic: "mean" for that of the critics' mean, which is the mean of their
      gradients; "lowest" for that of the lowest critic at each action.

  Returns:
    The gradient [B, A].
  """

  def total_q_value(action: jax.Array) -> jax.Array:
    if critic == "lowest":
      return jnp.sum(
        lowest_q_value(networks, critic_params, observation, action[:, None])
      )
    q_values = networks.q_values(critic_params, observation, action)
    return jnp.sum(jnp.mean(q_values, axis=0))

  return jax.grad(total_q_value)(action)


def add_next_value(
  config: ActorCriticConfig, transitions: types.Transition, bonus: jax.Array
) -> types.Transition:
  """Adds to the next action's value, whatever it is that critics predict.

  Args:
    config: the discount and the rewards' scale.
    transitions: the batch.
    bonus: [B] what is added, in units of scaled reward.

  Returns:
    The transitions, in whose rewards the discounted bonus is.
  """
  scale = config.discount / config.reward_scale
  return transitions._replace(
    reward=transitions.reward + scale * transitions.discount * bonus
  )


def make_critic_loss(
  networks: CriticNetworks, config: ActorCriticConfig
) -> CriticLoss:
  """Makes the loss of critics that share the lowest target.

  Args:
    networks: the critics.
    config: their head, the discount and the rewards' scale.

  Returns:
    The loss, a mean over the batch: `losses.clipped_double_q_loss`, or the same
    for the distributions that other heads predict. Its metrics are the mean
    Q-value ("q_value") and, of categorical critics, the share of the target
    that is beyond the ends of the atoms (`atoms.mass_beyond`): more than a
    little says that returns do not fit between min_value and max_value.

  Raises:
    ValueError: if the networks have no such head, or were made for another.
  """
  _require_same_head(networks, config)
  per_example = _make_head_loss(config)
  outputs = (
    networks.q_values
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
  ) -> tuple[jax.Array, types.Metrics]:
    found = outputs(params, transitions.observation, transitions.action)
    reward = config.reward_scale * transitions.reward
    discount = config.discount * transitions.discount
    next_found = outputs(
      target_params, transitions.next_observation, next_action
    )
    loss = per_example(found, reward, discount, next_found)
    metrics = {"q_value": jnp.mean(networks_lib.expected_value(config, found))}
    if config.critic_head == "categorical":
      returns = jnp.asarray(networks_lib.make_atoms(config))
      metrics["mass_beyond_atoms"] = atoms.mass_beyond(
        next_found, returns, reward, discount, config.categorical_target
      )
    return jnp.mean(loss), metrics

  return critic_loss


def _require_same_head(
  networks: CriticNetworks, config: ActorCriticConfig
) -> None:
  """Raises ValueError if the networks' head is known to be another one.

  The losses would read its outputs as what they are not.
  """
  fields = {
    "scalar": (),
    "categorical": ("num_atoms", "min_value", "max_value"),
    "quantile": ("num_quantiles",),
  }[config.critic_head]
  for field in ("critic_head", *fields):
    # Networks of other make need not say.
    known, wanted = getattr(networks, field, None), getattr(config, field)
    if known not in (None, wanted):
      raise ValueError(
        f"The networks were made for {field}={known!r}, but "
        f"{type(config).__name__}.{field} is {wanted!r}: make both from one "
        "configuration."
      )


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
  returns = jnp.asarray(networks_lib.make_atoms(config))
  return lambda outputs, *rest: loss(outputs, returns, *rest)
