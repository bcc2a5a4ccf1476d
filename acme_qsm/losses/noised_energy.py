"""A noised Boltzmann policy's noise, by the critics' action gradient."""

import chex
import jax
import jax.numpy as jnp


def noised_energy_noise(
  action_gradient: jax.Array,
  weight: jax.Array,
  alpha_bar: jax.Array,
  boundary: jax.Array | None = None,
) -> jax.Array:
  """The noise prediction of a noised Boltzmann policy, from reverse samples.

  Iterated denoising energy matching (Akhound-Sadegh et al., 2024,
  https://arxiv.org/abs/2402.06121, eq. 8): the score of the density
  proportional to exp(kappa Q) noised to a_t is

    sum_k w_k kappa grad_a Q(s, a_k) / sqrt(alpha_bar_t),

  w = softmax_k(kappa Q(s, a_k)), over clean actions a_k that a_t may have come
  from (`diffusion.reverse_samples`), as K grows. On a box, where the density
  ends, each entry also has what flows through the box's two faces:

    - (g(1) - g(-1)) / sqrt(alpha_bar_t),

  with g(b) the density, given a_t, of the clean action's entry at b (see
  `diffusion.density_at_bounds`).

  Args:
    action_gradient: [B, K, A] kappa grad_a Q at the K clean actions.
    weight: [B, K] their weights, which sum to one.
    alpha_bar: [B] alpha_bar_t of each example's denoising step, in (0, 1).
    boundary: [B, A] g(1) - g(-1); None for no box.

  Returns:
    eps = -sqrt(1 - alpha_bar_t) score [B, A].
  """
  chex.assert_rank([action_gradient, weight, alpha_bar], [3, 2, 1])
  chex.assert_equal_shape_prefix([action_gradient, weight], 2)
  gradient = jnp.einsum("bk,bka->ba", weight, action_gradient)
  if boundary is not None:
    chex.assert_equal_shape([gradient, boundary])
    gradient = gradient - boundary
  return -jnp.sqrt((1.0 - alpha_bar) / alpha_bar)[:, None] * gradient
