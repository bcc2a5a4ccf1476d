"""The critics: what they must hold, their target's action, their loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import Literal
from typing import TypeAlias

import numpy as np

from acme_qsm import losses
from acme_qsm import networks as networks_lib
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core.config import ActorCriticConfig
from acme_qsm.core.config import CategoricalTarget
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp

CriticLoss: TypeAlias = Callable[
  [types.Params, types.Params, types.Transition, "jax.Array"],
  tuple["jax.Array", types.Metrics],
]
"""(critics' parameters, target critics', transitions, next action [B, A]) ->
(loss [], metrics)."""

GradientCritic = Literal["mean", "lowest"]


# Floating point's 1 / (1 - discount) may be a bit more than it is on paper.
_ROUNDING = 1e-6
# And float32's n-step target, which may be at an end, is off by some units: as
# a share of the atoms' width.
_ROUNDING_OF_TARGETS = 1e-5


def require_atoms_hold_returns(
  environment_spec: types.EnvironmentSpecLike, config: ActorCriticConfig
) -> None:
  """Raises ValueError if a categorical critic's atoms cannot hold the returns.

  Where the environment states its rewards' bounds, a return is at most
  reward_scale / (1 - discount) times as large; and as an episode may end at
  once, it may be 0. A bonus b on the next value, such as its entropy, adds up
  to b discount^n / (1 - discount^n) where transitions span n steps, b being
  `config.largest_bonus`: what it is worth at most as training starts, so that
  one whose temperature rises may have more. Nothing is known, and nothing
  refused, of a side on which rewards have no finite bound, or where the
  discount is 1, nor of how negative a bonus may be: `mass_beyond_atoms` then
  tells whether returns fit.

  Args:
    environment_spec: the environment's spec, with actions [A]; its `rewards`,
      if it has any, may have `minimum` and `maximum`.
    config: the critics' head and atoms.

  Raises:
    ValueError: names the field, and says what it must be.
  """
  rewards = getattr(environment_spec, "rewards", None)
  if config.critic_head != "categorical" or config.discount == 1.0:
    return
  horizon = config.reward_scale / (1.0 - config.discount)
  minimum = getattr(rewards, "minimum", None)
  maximum = getattr(rewards, "maximum", None)
  if minimum is not None and np.all(np.isfinite(minimum)):
    least = min(0.0, horizon * float(np.min(minimum)))
    if config.min_value > least * (1.0 - _ROUNDING):
      config.fail("min_value", _bound("at most", least, minimum, config))
  if maximum is not None and np.all(np.isfinite(maximum)):
    most = horizon * float(np.max(maximum))
    bonus = config.largest_bonus(environment_spec.actions.shape[0])
    if bonus > 0.0:
      kept = config.discount**config.n_step
      most += bonus * kept / (1.0 - kept)
    most = max(0.0, most)
    if config.max_value < most * (1.0 - _ROUNDING):
      allowed = _bound("at least", most, maximum, config)
      if bonus > 0.0:
        allowed += (
          f", with a bonus of up to {bonus:.7g} on each next value at "
          f"n_step={config.n_step}"
        )
      config.fail("max_value", allowed)


def _bound(
  relation: str, value: float, reward: Any, config: ActorCriticConfig
) -> str:
  """What an end of the atoms must be, and what of."""
  return (
    f"{relation} {value:.7g} for critic_head='categorical', a reward of "
    f"{reward}, reward_scale={config.reward_scale} and "
    f"discount={config.discount}"
  )


def draw_target_action(
  sampler: acting.Sampler,
  networks: acting.Networks,
  config: ActorCriticConfig,
  policy_params: types.Params,
  critic_params: types.Params,
  key: jax.Array,
  observation: jax.Array,
  noise_scale: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Draws the actions at which the target critics are asked.

  Args:
    sampler: draws an action for each observation.
    networks: the critics.
    config: candidates and noise of the critics' target.
    policy_params: the policy's parameters.
    critic_params: the target critics' parameters, which choose among
      candidates.
    key: a PRNG key, consumed.
    observation: [B, ...] the transitions' next observations.
    noise_scale: [] factor of the noise; None for none.

  Returns:
    Actions [B, A] in [-1, 1], and the same before the noise.
  """
  sample_key, noise_key = jax.random.split(key)
  action = acting.best_of(
    sampler,
    networks,
    policy_params,
    critic_params,
    sample_key,
    observation,
    num_candidates=config.num_target_candidates,
  )
  noisy_action = acting.add_exploration_noise(
    noise_key,
    action,
    acting.scale_noise(config.target_action_noise, noise_scale),
  )
  return noisy_action, action


def make_critic_loss(
  networks: acting.Networks, config: ActorCriticConfig
) -> CriticLoss:
  """Makes the loss of critics that share the lowest target.

  Args:
    networks: the critics.
    config: their head, the discount and the rewards' scale.

  Returns:
    The loss, a mean over the batch: `losses.clipped_double_q_loss`, or the same
    for the distributions that other heads predict. Its metrics are the mean
    Q-value ("q_value") and, of categorical critics, the share of the target
    that is beyond the ends of the atoms (`mass_beyond_atoms`): more than a
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
      atoms = jnp.asarray(networks_lib.make_atoms(config))
      metrics["mass_beyond_atoms"] = mass_beyond_atoms(
        next_found, atoms, reward, discount, config.categorical_target
      )
    return jnp.mean(loss), metrics

  return critic_loss


def _require_same_head(
  networks: acting.Networks, config: ActorCriticConfig
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
  atoms = jnp.asarray(networks_lib.make_atoms(config))
  return lambda outputs, *rest: loss(outputs, atoms, *rest)


def mass_beyond_atoms(
  next_logits: jax.Array,
  atoms: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  categorical_target: CategoricalTarget = "projection",
) -> jax.Array:
  """How much of the critics' target does not fit between the end atoms.

  Args:
    next_logits: [N, B, M] the target critics' logits.
    atoms: [M] the atoms.
    reward: [B] rewards, scaled.
    discount: [B] discounts.
    categorical_target: what the target is: the distribution of the lowest mean
      ("projection"), or that mean ("hl_gauss"), which smoothing keeps.

  Returns:
    The mean probability [] of a target beyond one of the end atoms, or the
    share of targets that are; one that is just there fits, as a return of 0
    does where min_value is 0.
  """
  probabilities = jax.nn.softmax(next_logits)
  means = probabilities @ atoms
  if categorical_target == "projection":
    returns, mass = atoms, losses.take_lowest(probabilities, means)
  else:
    returns = jnp.min(means, axis=0)[:, None]
    mass = jnp.ones_like(returns)
  target = reward[:, None] + discount[:, None] * returns
  slack = _ROUNDING_OF_TARGETS * (atoms[-1] - atoms[0])
  beyond = (target < atoms[0] - slack) | (target > atoms[-1] + slack)
  return jnp.mean(jnp.sum(mass * beyond, axis=-1))


def action_gradient(
  networks: acting.Networks,
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
        acting.lowest_q_value(
          networks, critic_params, observation, action[:, None]
        )
      )
    q_values = networks.q_values(critic_params, observation, action)
    return jnp.sum(jnp.mean(q_values, axis=0))

  return jax.grad(total_q_value)(action)
