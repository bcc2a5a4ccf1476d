"""Losses that match a denoiser to the critics' action gradient."""

import chex
import jax
import jax.numpy as jnp


def q_score_matching_loss(
  noise_prediction: jax.Array,
  action_gradient: jax.Array,
  scale: float | jax.Array,
) -> jax.Array:
  """Q-score matching: the score is pulled towards the critic's gradient.

  Psenka et al. (2024, https://arxiv.org/abs/2312.11752), algorithm 1 and
  appendix A: min ||Psi(s, a_t, t) - alpha grad_a Q(s, a_t)||^2. The noise
  prediction eps and the score Psi point opposite ways, so that here

    loss = mean_A (eps + alpha grad_a Q)^2.

  The gradient is a constant: none flows into the critic.

  Args:
    noise_prediction: [B, A] the denoiser's output eps for noisy actions a_t.
    action_gradient: [B, A] grad_a Q at the same a_t.
    scale: alpha, in units of action per unit of Q.

  Returns:
    The loss of each example [B].
  """
  chex.assert_rank([noise_prediction, action_gradient], 2)
  chex.assert_equal_shape([noise_prediction, action_gradient])
  target = jax.lax.stop_gradient(-scale * action_gradient)
  return jnp.mean(jnp.square(noise_prediction - target), axis=-1)


def boltzmann_score_matching_loss(
  noise_prediction: jax.Array,
  action_gradient: jax.Array,
  noisy_action: jax.Array,
  alpha_bar: jax.Array,
  scale: float | jax.Array,
) -> jax.Array:
  """Q-score matching to a Boltzmann policy with a standard normal prior.

  The score at every noise level is taken to be kappa grad_a Q(s, a_t) - a_t: as
  in Q-score matching, the critic is asked at the noisy action. In the
  denoiser's terms, eps = -sqrt(1 - alpha_bar_t) score, hence

    loss = mean_A (eps - sqrt(1 - alpha_bar_t) (a_t - kappa grad_a Q))^2.

  With many denoising steps, the reverse process then draws from the density
  proportional to exp(2 kappa Q(s, a)) N(a; 0, I), which the stochastic
  differential equation that it discretises leaves as it is. Without the prior's
  term, which that process assumes, each denoising step blows actions up by
  1 / sqrt(alpha_t) and only the clip holds them.

  Args:
    noise_prediction: [B, A] the denoiser's output eps.
    action_gradient: [B, A] grad_a Q at the noisy actions.
    noisy_action: [B, A] the noisy actions a_t.
    alpha_bar: [B] alpha_bar_t of each example's denoising step, in (0, 1).
    scale: kappa, in units of action per unit of Q.

  Returns:
    The loss of each example [B]; no gradient flows into the target.
  """
  chex.assert_rank([noise_prediction, alpha_bar], [2, 1])
  chex.assert_equal_shape([noise_prediction, action_gradient, noisy_action])
  target = jnp.sqrt(1.0 - alpha_bar)[:, None] * (
    noisy_action - scale * action_gradient
  )
  target = jax.lax.stop_gradient(target)
  return jnp.mean(jnp.square(noise_prediction - target), axis=-1)
