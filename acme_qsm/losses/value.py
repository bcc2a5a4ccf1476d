"""Losses of critics."""

import chex
import jax
import jax.numpy as jnp


def clipped_double_q_loss(
  q_values: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  next_q_values: jax.Array,
) -> jax.Array:
  """Squared TD errors of critics that share the lowest target.

  Fujimoto et al. (2018, https://arxiv.org/abs/1802.09477), algorithm 1:
  y = r + discount min_i Q'_i(s', a'); loss = sum_i (y - Q_i(s, a))^2.

  Args:
    q_values: [N, B] Q_i(s, a) of the N online critics.
    reward: [B] (n-step) rewards.
    discount: [B] factor of the bootstrap value, 0 at termination.
    next_q_values: [N, B] Q'_i(s', a') of the target critics.

  Returns:
    The loss of each example [B]; no gradient flows into the target.
  """
  # Not at the top: rlax loads TensorFlow where that is installed.
  import rlax

  chex.assert_rank([q_values, next_q_values, reward, discount], [2, 2, 1, 1])
  chex.assert_equal_shape([reward, discount, q_values[0], next_q_values[0]])
  td_error = jax.vmap(rlax.td_learning, in_axes=(0, None, None, None))
  td_errors = jax.vmap(td_error, in_axes=(1, 0, 0, 0), out_axes=1)(
    q_values, reward, discount, jnp.min(next_q_values, axis=0)
  )
  return jnp.sum(jnp.square(td_errors), axis=0)
