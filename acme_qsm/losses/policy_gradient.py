"""Policy gradients through the log-probabilities of denoising steps."""

import chex
import jax
import jax.numpy as jnp


def diffusion_policy_gradient_loss(
  log_prob: jax.Array, advantage: jax.Array
) -> jax.Array:
  """Policy gradient of a denoiser: its steps are actions of equal credit.

  Psenka et al. (2024, https://arxiv.org/abs/2312.11752), eq. 9:

    grad J = E[Q(s, a) sum_t grad log pi(a_{t-1} | a_t, s)],

  of which this is the loss, with an advantage (Q less a baseline that depends
  on the state alone) in place of Q:

    loss = -advantage sum_t log pi(a_{t-1} | a_t, s).

  Args:
    log_prob: [B, T] log-probability of each denoising step's sample before the
      clip, summed over the action's dimensions, of a chain held constant (see
      `diffusion.chain_log_prob`).
    advantage: [B] advantages; no gradient flows into them.

  Returns:
    The loss of each example [B].
  """
  chex.assert_rank([log_prob, advantage], [2, 1])
  chex.assert_equal_shape_prefix([log_prob, advantage], 1)
  return -jax.lax.stop_gradient(advantage) * jnp.sum(log_prob, axis=-1)
