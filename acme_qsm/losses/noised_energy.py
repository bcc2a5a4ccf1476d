"""A noised Boltzmann policy's clean action, by the critics' action gradient."""

import chex
import jax
import jax.numpy as jnp


def noised_energy_action(
  clean_action: jax.Array,
  action_gradient: jax.Array,
  weight: jax.Array,
  tilt: jax.Array,
  tilted_mean: jax.Array,
  kernel: jax.Array,
  *,
  mix: bool = True,
) -> tuple[jax.Array, jax.Array]:
  """The mean clean action of a Boltzmann policy that was noised to a_t.

  Of the density p(a) proportional to exp(E(a)) q(a), where q is that of the
  reverse samples of a_t (`diffusion.reverse_samples`), from K of them. Each of
  its entries is the mean, under p, of two functions of a:

    a                              (denoising: the weighted mean of noises)
    mu_g + tau_g(a) (E'(a) - g)    (target score matching)

  for whatever tilt g; mu_g and tau_g are the mean and the Stein kernel of q
  tilted by it (`diffusion.stein_kernel`). For integrating by parts gives
  E_p[(a - mu_g - tau_g (E' - g)) h] = E_p[tau_g h'] for any h, of which this
  is h = 1: on a box too, since there tau_g vanishes at its faces. Without one,
  tau_g is the variance of q, and the second is iterated denoising energy
  matching (Akhound-Sadegh et al., 2024, https://arxiv.org/abs/2402.06121, eq.
  8), the target score identity of De Bortoli et al. (2024,
  https://arxiv.org/abs/2402.08667) with importance weights. With g the mean
  gradient, it is exact for a linear E, however steep and however few samples.

  So is any mixture, (1 - c) times the first and c times the second. With D the
  first less the second, whose mean is 0, and r = tau_g (E' - g), the variance
  of a - c D is least at

    c = E_p[a D] / E_p[D^2] = E_p[tau_g] / (E_p[tau_g] - E_p[r D])

  where E_p[a D] is by the identity with h = a, and E_p[D^2] = E_p[(a - r) D]
  since E_p[D] = 0. c is 1 for a linear E, and for a normal p without a box its
  variance divided by q's: where E is that of N(m, s^2),
  alpha_bar_t s^2 / (alpha_bar_t s^2 + 1 - alpha_bar_t).

  Means under p are those of the K samples by their weights; those in c by
  weights of which a share of sum_k weight_k^2, one effective sample's, is
  spread evenly: if one sample has all the weight, its gradient alone would say
  that E is linear. As K grows that share vanishes, and the mixture becomes that
  of least variance; at any K its bias is that of a ratio, of order 1 / K.

  Args:
    clean_action: [B, K, A] the clean actions.
    action_gradient: [B, K, A] E's gradient there.
    weight: [B, K] their weights, softmax_k E, which sum to one.
    tilt: [B, A] g.
    tilted_mean: [B, A] mu_g.
    kernel: [B, K, A] tau_g at the clean actions, not negative.
    mix: whether to mix; else it is the second alone, c = 1.

  Returns:
    The mean clean action [B, A], and c [B, A], in [0, 1].
  """
  chex.assert_rank([clean_action, weight, tilt], [3, 2, 2])
  chex.assert_equal_shape([clean_action, action_gradient, kernel])
  chex.assert_equal_shape_prefix([clean_action, weight], 2)
  chex.assert_equal_shape([clean_action[:, 0], tilt, tilted_mean])

  def mean(weight: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.einsum("bk,bka->ba", weight, values)

  residual = kernel * (action_gradient - tilt[:, None])
  by_gradients = tilted_mean + mean(weight, residual)
  if not mix:
    return by_gradients, jnp.ones_like(by_gradients)
  spread = jnp.sum(jnp.square(weight), axis=1, keepdims=True)
  spread_weight = (1.0 - spread) * weight + spread / weight.shape[1]
  difference = clean_action - tilted_mean[:, None] - residual
  covariance = mean(spread_weight, kernel)
  variance = covariance - mean(spread_weight, residual * difference)
  # Within [0, 1] without dividing by what may be 0 or below.
  gradient_share = jnp.where(
    variance > covariance, covariance / jnp.maximum(variance, 1e-30), 1.0
  )
  by_noises = mean(weight, clean_action)
  mixed = by_noises + gradient_share * (by_gradients - by_noises)
  return mixed, gradient_share
