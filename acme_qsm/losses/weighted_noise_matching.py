"""Denoising weighted by the critics: the loss, its weights, their temperature.

K samples compete for each noisy action. Their weights, exp(Q / temperature) up
to a factor, turn denoising of what was sampled into denoising of a Boltzmann
policy.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np


def reverse_sampling_score_matching_loss(
  noise_prediction: jax.Array, reverse_noise: jax.Array, weight: jax.Array
) -> jax.Array:
  """Reverse sampling score matching: noises weighted by their clean actions.

  Ma et al. (2025, https://arxiv.org/abs/2502.00361), eqs. 16 and 17, in terms
  of the noise prediction eps (their loss times 1 - alpha_bar_t):

    loss = sum_k weight_k mean_A (eps - noise_k)^2,

  least where eps is the weighted mean of the noises. With weights proportional
  to exp(Q(s, a_k) / temperature) of the clean actions a_k that the noises leave
  (see `diffusion.reverse_samples`), that is the noise prediction of the noised
  Boltzmann policy, whichever density the noisy actions are drawn from.

  Args:
    noise_prediction: [B, A] the denoiser's output eps for noisy actions a_t.
    reverse_noise: [B, K, A] reverse noises of the same a_t.
    weight: [B, K] weights, those of `self_normalized_weights` or of
      `exponential_weights`; they carry the 1 / K of a mean over k.

  Returns:
    The loss of each example [B]; no gradient flows into noises or weights.
  """
  chex.assert_rank([noise_prediction, reverse_noise, weight], [2, 3, 2])
  chex.assert_equal_shape_prefix([reverse_noise, weight], 2)
  chex.assert_equal_shape([noise_prediction, reverse_noise[:, 0]])
  reverse_noise, weight = jax.lax.stop_gradient((reverse_noise, weight))
  square = jnp.square(noise_prediction[:, None] - reverse_noise)
  return jnp.sum(weight * jnp.mean(square, axis=-1), axis=-1)


def weighted_denoising_loss(
  noise_prediction: jax.Array, noise: jax.Array, weight: jax.Array
) -> jax.Array:
  """Denoising of samples that count by their weights.

    loss = weight mean_A (eps - noise)^2,

  where the noise was added to a clean action. With weights w(a) of actions from
  a density p, the denoiser becomes that of the density proportional to
  w(a) p(a).

  Args:
    noise_prediction: [B, A] the denoiser's output eps for the noisy actions.
    noise: [B, A] the noises in them.
    weight: [B] weights, not negative.

  Returns:
    The loss of each example [B]; no gradient flows into noises or weights.
  """
  chex.assert_rank([noise_prediction, weight], [2, 1])
  chex.assert_equal_shape([noise_prediction, noise])
  noise, weight = jax.lax.stop_gradient((noise, weight))
  return weight * jnp.mean(jnp.square(noise_prediction - noise), axis=-1)


def self_normalized_weights(
  q_value: jax.Array, boltzmann_temperature: float | jax.Array
) -> jax.Array:
  """Boltzmann weights that sum to one: softmax_k(Q / temperature).

  The K samples' own normalisation: finite whatever the size of Q, and biased at
  finite K. With K = 1 the weight is 1 and says nothing.

  Args:
    q_value: [B, K] Q(s, a_k).
    boltzmann_temperature: in units of Q, positive.

  Returns:
    The weights [B, K].
  """
  chex.assert_rank(q_value, 2)
  return jax.nn.softmax(q_value / boltzmann_temperature, axis=-1)


def exponential_weights(
  q_value: jax.Array,
  boltzmann_temperature: float | jax.Array,
  *,
  normalize: bool = False,
  clip: float | None = None,
) -> jax.Array:
  """Boltzmann weights without a normaliser: exp(Q / temperature) / K.

  Unbiased at any K, one included, but as spread as exp is.

  Args:
    q_value: [B, K] Q(s, a_k).
    boltzmann_temperature: positive; in units of Q, or in standard deviations of
      Q where it is normalised.
    normalize: whether Q is first normalised by `normalize_q_value`. A batch of
      equal values has weights 1 / K.
    clip: see `normalize_q_value`; not read where Q is not normalised.

  Returns:
    The weights [B, K]; infinite where Q / temperature is beyond about 88, as
    that of one outlier among 4 096 values may be at a temperature of 0.7, whose
    normalised Q is 64.
  """
  chex.assert_rank(q_value, 2)
  if normalize:
    q_value = normalize_q_value(q_value, clip)
  return jnp.exp(q_value / boltzmann_temperature) / q_value.shape[1]


def normalize_q_value(
  q_value: jax.Array, clip: float | None = None
) -> jax.Array:
  """Q less the mean of the whole batch, divided by its standard deviation.

  Ma et al. (2025), "numerical stability".

  Args:
    q_value: [B, K] Q(s, a_k).
    clip: see `standardize`.

  Returns:
    The same [B, K], of mean 0 and standard deviation 1 before the clip; 0 where
    all are equal.
  """
  q_value = q_value - jnp.mean(q_value)
  # Again: what rounding of the first mean left, which is all that equal values
  # have.
  return standardize(q_value, jnp.mean(q_value), jnp.std(q_value), clip)


def standardize(
  q_value: jax.Array,
  mean: jax.Array,
  deviation: jax.Array,
  clip: float | None = None,
) -> jax.Array:
  """Q less a mean, divided by a standard deviation, within bounds.

  Args:
    q_value: [B, K] Q(s, a_k).
    mean: [] a mean of Q.
    deviation: [] a standard deviation of Q; 1e-6 if it is less.
    clip: the largest size of the result, which bounds what exp makes of it;
      None for no bound.

  Returns:
    The same [B, K].
  """
  standard = (q_value - mean) / jnp.maximum(deviation, 1e-6)
  return standard if clip is None else jnp.clip(standard, -clip, clip)


def effective_sample_size(weight: jax.Array) -> jax.Array:
  """How many equal weights would be as spread: 1 / sum_k w_k^2.

  Kish (1965), of weights that sum to one; others are made to.

  Args:
    weight: [B, K] weights, not negative.

  Returns:
    The effective sample size of each example [B], from 1 to K.
  """
  chex.assert_rank(weight, 2)
  weight = weight / jnp.sum(weight, axis=-1, keepdims=True)
  return 1.0 / jnp.sum(jnp.square(weight), axis=-1)


def weight_kl(weight: jax.Array) -> jax.Array:
  """KL divergence of weights from equal ones: log K - H(w), in nats.

  It estimates the divergence of the weighted policy from the density that the
  samples are of.

  Args:
    weight: [B, K] weights that sum to one.

  Returns:
    The divergence of each example [B], from 0 to log K.
  """
  chex.assert_rank(weight, 2)
  negative_entropy = jnp.sum(jax.scipy.special.xlogy(weight, weight), axis=-1)
  return jnp.log(weight.shape[1]) + negative_entropy


def temperature_loss(
  boltzmann_temperature: float | jax.Array,
  weight: jax.Array,
  target_kl: float | jax.Array,
) -> jax.Array:
  """Loss of the temperature whose weights have a given KL divergence.

    loss = temperature (target_kl + H(w) - log K),

  with the entropy H(w) of the weights held constant. Its gradient in the
  temperature is target_kl - KL(w || 1 / K), that of the dual of maximum a
  posteriori policy optimisation (Abdolmaleki et al., 2018,
  https://arxiv.org/abs/1806.06920): a divergence above the target raises the
  temperature. What it settles at is the same for any affine change of Q, up to
  the temperature's unit. The caller keeps the temperature positive; or descends
  its logarithm, given in its place: that settles at the same, by steps that do
  not depend on the temperature's size.

  Args:
    boltzmann_temperature: [] the temperature, in units of Q, or its logarithm.
    weight: [B, K] `self_normalized_weights` at that temperature.
    target_kl: the divergence wanted, in nats, in (0, log K).

  Returns:
    The loss of each example [B].

  Raises:
    ValueError: if target_kl, where it is a plain number, is not in (0, log K):
      no weights have such a divergence.
  """
  chex.assert_rank(weight, 2)
  num_samples = weight.shape[1]
  limit = float(np.log(num_samples))
  if isinstance(target_kl, int | float) and not 0.0 < target_kl < limit:
    raise ValueError(
      f"target_kl must be between 0 and log K = {limit:.3f} for K = "
      f"{num_samples} samples, got {target_kl}."
    )
  gradient = target_kl - jax.lax.stop_gradient(weight_kl(weight))
  return boltzmann_temperature * gradient
