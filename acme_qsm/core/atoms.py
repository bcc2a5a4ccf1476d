"""Whether the atoms of categorical critics can hold the returns."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import losses
from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.configs.actor_critic import CategoricalTarget

# Floating point's 1 / (1 - discount) may be a bit more than it is on paper.
_ROUNDING = 1e-6
# And float32's n-step target, which may be at an end, is off by some units: as
# a share of the atoms' width.
_ROUNDING_OF_TARGETS = 1e-5


def require_hold_returns(
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
  discount is 1, nor of how negative a bonus may be: `mass_beyond` then
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


def mass_beyond(
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
