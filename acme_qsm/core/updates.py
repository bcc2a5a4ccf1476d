"""Updates of parameters: gradient steps, their schedules, targets."""

import math
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig


class Update(NamedTuple):
  """What a gradient step leaves.

  Attributes:
    params: the new parameters.
    opt_state: the optimiser's new state.
    loss: [] the loss before the step.
    aux: what else the loss returned.
  """

  params: types.Params
  opt_state: optax.OptState
  loss: jax.Array
  aux: Any


def gradient_step(
  loss: Callable[..., tuple[jax.Array, Any]],
  optimizer: optax.GradientTransformation,
  params: types.Params,
  opt_state: optax.OptState,
  *args: Any,
) -> Update:
  """Makes one step of an optimiser down a loss.

  Args:
    loss: (params, *args) -> (loss [], anything else).
    optimizer: the optimiser.
    params: its parameters.
    opt_state: its state.
    *args: the loss's further arguments.

  Returns:
    What the step leaves.
  """
  (value, aux), gradients = jax.value_and_grad(loss, has_aux=True)(
    params, *args
  )
  updates, opt_state = optimizer.update(gradients, opt_state, params)
  return Update(optax.apply_updates(params, updates), opt_state, value, aux)


def then_project(
  optimizer: optax.GradientTransformation,
  project: Callable[[types.Params], types.Params],
) -> optax.GradientTransformation:
  """An optimiser after whose steps parameters are projected.

  Args:
    optimizer: the optimiser.
    project: parameters -> parameters, such as weights of norm 1.

  Returns:
    The optimiser, whose steps lead to the projected parameters.
  """

  def update(
    updates: optax.Updates,
    state: optax.OptState,
    params: types.Params = None,
  ) -> tuple[optax.Updates, optax.OptState]:
    changes, state = optimizer.update(updates, state, params)
    projected = project(optax.apply_updates(params, changes))
    return jax.tree.map(jnp.subtract, projected, params), state

  return optax.GradientTransformation(optimizer.init, update)


def require_scalars(name: str, metrics: types.Metrics) -> types.Metrics:
  """Metrics in single precision: they are held, averaged and may be NaN.

  Args:
    name: what reports them.
    metrics: numbers by name.

  Returns:
    The same as float32 [].

  Raises:
    ValueError: if one is no scalar.
  """
  for metric, value in metrics.items():
    if jnp.shape(value) != ():
      raise ValueError(
        f"The {name} reports {metric!r} of shape {jnp.shape(value)}; a metric "
        "must be a scalar."
      )
  return {
    metric: jnp.asarray(value, jnp.float32) for metric, value in metrics.items()
  }


def move_running_mean(
  mean: jax.Array, value: jax.Array, decay: float, updates: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Moves a running mean towards a new value.

  Args:
    mean: [] the mean before, as returned; 0 before the first value.
    value: [] the new value.
    decay: how much of the mean before is kept, in [0, 1).
    updates: [] values seen before this one.

  Returns:
    The new mean [], which is biased towards its start at 0, and the same
    without that bias, as Adam's moments are freed of theirs.
  """
  # 1 - decay is Python's, in double precision: of a decay near 1 in single
  # precision, it would have few digits.
  mean = mean + (1.0 - decay) * (value - mean)
  return mean, mean / _seen_share(decay, updates)


def newest_share(decay: float, updates: jax.Array) -> jax.Array:
  """The newest value's share of a running mean that is freed of its bias.

  Args:
    decay: how much of the mean before is kept, in [0, 1).
    updates: [] values seen before this one.

  Returns:
    (1 - decay) / (1 - decay^(updates + 1)) []: 1 of the first value.
  """
  # Rounding could make it more than 1.
  return jnp.minimum((1.0 - decay) / _seen_share(decay, updates), 1.0)


def _seen_share(decay: float, updates: jax.Array) -> jax.Array:
  """1 - decay^(updates + 1) [], with its digits however near 1 decay is."""
  log_decay = math.log(decay) if decay > 0.0 else -math.inf
  return -jnp.expm1((updates + 1) * log_decay)


def move_target(
  online: types.Params, target: types.Params, rate: float
) -> types.Params:
  """Moves a target network's parameters towards the online one's."""
  return optax.incremental_update(online, target, rate)


def make_policy_optimizer(
  config: ActorCriticConfig,
) -> optax.GradientTransformation:
  """Makes Adam with the learning rate's schedule."""
  start, end = config.policy_learning_rate, config.policy_learning_rate_end
  steps, begin = (
    config.policy_learning_rate_steps,
    config.policy_learning_rate_begin,
  )
  if config.policy_learning_rate_schedule == "constant":
    return optax.adam(start)
  if config.policy_learning_rate_schedule == "linear":
    fall = optax.linear_schedule(start, end, steps)
  else:
    fall = optax.cosine_decay_schedule(start, steps, alpha=end / start)
  return optax.adam(
    optax.join_schedules([optax.constant_schedule(start), fall], [begin])
  )
