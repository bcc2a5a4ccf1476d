"""Maximum entropy reinforcement learning: its densities and losses."""

import chex
import jax
import jax.numpy as jnp


def squashed_log_prob(
  action: jax.Array, mean: jax.Array, log_std: jax.Array
) -> jax.Array:
  """The log-density of tanh(u) at a given u of a normal.

  Haarnoja et al. (2018, https://arxiv.org/abs/1812.05905, appendix C):
  log N(u) - sum_A log(1 - tanh(u)^2), with the sum in a form that keeps its
  digits however large u is.

  Args:
    action: [B, A] u, the action before tanh.
    mean: [B, A] the normal's mean.
    log_std: [B, A] the logarithm of its standard deviation.

  Returns:
    The log-density of each tanh(u) [B].
  """
  chex.assert_rank(action, 2)
  chex.assert_equal_shape([action, mean, log_std])
  log_normal = jax.scipy.stats.norm.logpdf(action, mean, jnp.exp(log_std))
  log_slope = 2.0 * (jnp.log(2.0) - action - jax.nn.softplus(-2.0 * action))
  return jnp.sum(log_normal - log_slope, axis=-1)


def soft_policy_loss(
  q_value: jax.Array, log_prob: jax.Array, temperature: float | jax.Array
) -> jax.Array:
  """Soft actor-critic's loss of the policy.

  Haarnoja et al. (2018), eq. 7: temperature log pi(a | s) - Q(s, a), of actions
  through which the gradient flows.

  Args:
    q_value: [B] the lowest critic's Q at actions of the policy.
    log_prob: [B] their log-densities.
    temperature: in units of Q, not negative.

  Returns:
    The loss of each example [B].
  """
  chex.assert_rank([q_value, log_prob], 1)
  chex.assert_equal_shape([q_value, log_prob])
  return temperature * log_prob - q_value


def entropy_temperature_loss(
  log_temperature: jax.Array, log_prob: jax.Array, target_entropy: float
) -> jax.Array:
  """Loss of the temperature that holds the policy's entropy at a target.

  Haarnoja et al. (2018), eq. 18, of the logarithm as in their implementation:
  -log temperature (log pi(a | s) + target_entropy).

  Args:
    log_temperature: [] the temperature's logarithm.
    log_prob: [B] log-densities of the policy's actions; constants.
    target_entropy: in nats, of the whole action.

  Returns:
    The loss of each example [B].
  """
  chex.assert_rank(log_prob, 1)
  missing = jax.lax.stop_gradient(log_prob) + target_entropy
  return -log_temperature * missing
