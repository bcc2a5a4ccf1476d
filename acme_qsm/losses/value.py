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
  chex.assert_rank([q_values, next_q_values, reward, discount], [2, 2, 1, 1])
  chex.assert_equal_shape([reward, discount, q_values[0], next_q_values[0]])
  target = reward + discount * jnp.min(next_q_values, axis=0)
  td_errors = jax.lax.stop_gradient(target) - q_values
  return jnp.sum(jnp.square(td_errors), axis=0)


def categorical_double_q_loss(
  logits: jax.Array,
  atoms: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  next_logits: jax.Array,
) -> jax.Array:
  """Cross-entropy of categorical critics to the lowest target distribution.

  Bellemare et al. (2017, https://arxiv.org/abs/1707.06887), algorithm 1: the
  target's returns r + discount z are projected onto the atoms. Of the target
  critics' distributions, that of the lowest mean is every critic's target.

  Args:
    logits: [N, B, M] of the atoms, by the N online critics.
    atoms: [M] returns z, ascending.
    reward: [B] (n-step) rewards.
    discount: [B] factor of the bootstrap value, 0 at termination.
    next_logits: [N, B, M] of the target critics at s', a'.

  Returns:
    The sum over critics for each example [B]; no gradient flows into the
    target. What is beyond the atoms counts as the first or the last one.
  """
  # Not at the top: rlax loads TensorFlow where that is installed.
  import rlax

  chex.assert_rank([logits, next_logits, reward, discount], [3, 3, 1, 1])
  chex.assert_equal_shape([logits, next_logits])
  next_probabilities = take_lowest(
    jax.nn.softmax(next_logits), jax.nn.softmax(next_logits) @ atoms
  )
  next_atoms = reward[:, None] + discount[:, None] * atoms
  target = jax.vmap(rlax.categorical_l2_project, in_axes=(0, 0, None))(
    next_atoms, next_probabilities, atoms
  )
  return _cross_entropy(logits, jnp.asarray(target))


def hl_gauss_double_q_loss(
  logits: jax.Array,
  atoms: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  next_logits: jax.Array,
  *,
  deviation: float = 0.75,
) -> jax.Array:
  """Cross-entropy of categorical critics to a smoothed target value.

  HL-Gauss (Imani & White, 2018; Farebrother et al., 2024,
  https://arxiv.org/abs/2403.03950, section 3.1): the target y = r + discount
  min_i Q'_i, kept between the end atoms, is smoothed: see `smooth_value`.

  Args:
    logits: [N, B, M] of the atoms, by the N online critics.
    atoms: [M] returns, ascending, evenly spaced.
    reward: [B] (n-step) rewards.
    discount: [B] factor of the bootstrap value, 0 at termination.
    next_logits: [N, B, M] of the target critics at s', a'.
    deviation: the Gaussian's standard deviation, in distances between atoms.

  Returns:
    The sum over critics for each example [B]; no gradient flows into the
    target.
  """
  chex.assert_rank([logits, next_logits, reward, discount], [3, 3, 1, 1])
  chex.assert_equal_shape([logits, next_logits])
  next_value = jnp.min(jax.nn.softmax(next_logits) @ atoms, axis=0)
  target_value = jnp.clip(reward + discount * next_value, atoms[0], atoms[-1])
  return _cross_entropy(logits, smooth_value(target_value, atoms, deviation))


def smooth_value(
  value: jax.Array, atoms: jax.Array, deviation: float
) -> jax.Array:
  """A value as a distribution over atoms, of that mean.

  Of a Gaussian around the value each atom has the share that falls nearest to
  it, and what falls outside of the atoms is left out. Near an end that moves
  the mean away from it, by 0.37 of a distance between atoms at the end itself
  where the deviation is 0.75, and a critic that learns from its own means would
  add it up. So the end atom gets a part of all, which brings the mean back: a
  value at an end is that atom alone, and far from the ends the part is nothing.

  Args:
    value: [B] values within the atoms.
    atoms: [M] ascending, evenly spaced.
    deviation: the Gaussian's standard deviation, in distances between atoms.

  Returns:
    Probabilities [B, M] whose means are the values.
  """
  width = atoms[1] - atoms[0]
  edges = jnp.append(atoms - width / 2, atoms[-1] + width / 2)
  shares = jax.scipy.stats.norm.cdf(edges, value[:, None], deviation * width)
  smooth = jnp.diff(shares, axis=1) / (shares[:, -1:] - shares[:, :1])
  mean = smooth @ atoms
  below = mean > value
  end = jnp.where(below, atoms[0], atoms[-1])
  # The Gaussian's part p of p mean + (1 - p) end = value.
  part = jnp.clip((value - end) / (mean - end), 0.0, 1.0)
  # Where so little is smoothed that all is at the end anyway: not 0 / 0.
  part = jnp.where(mean == end, 0.0, part)[:, None]
  at_end = jnp.where(
    below[:, None],
    jnp.arange(atoms.size) == 0,
    jnp.arange(atoms.size) == atoms.size - 1,
  )
  return part * smooth + (1.0 - part) * at_end


def quantile_double_q_loss(
  quantiles: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  next_quantiles: jax.Array,
) -> jax.Array:
  """Quantile regression of critics to the lowest target distribution.

  Dabney et al. (2018, https://arxiv.org/abs/1710.10044), eq. 10, with the Huber
  loss's threshold at 1. Of the target critics' distributions, that of the
  lowest mean is every critic's target.

  Args:
    quantiles: [N, B, M] of the return at (2 m + 1) / (2 M), by the N online
      critics.
    reward: [B] (n-step) rewards.
    discount: [B] factor of the bootstrap value, 0 at termination.
    next_quantiles: [N, B, M] of the target critics at s', a'.

  Returns:
    The sum over critics for each example [B]; no gradient flows into the
    target.
  """
  # Not at the top: rlax loads TensorFlow where that is installed.
  import rlax

  chex.assert_rank([quantiles, next_quantiles, reward], [3, 3, 1])
  chex.assert_equal_shape([quantiles, next_quantiles])
  next_quantiles = take_lowest(
    next_quantiles, jnp.mean(next_quantiles, axis=-1)
  )
  target = jax.lax.stop_gradient(
    reward[:, None] + discount[:, None] * next_quantiles
  )
  num_quantiles = quantiles.shape[-1]
  levels = (jnp.arange(num_quantiles, dtype=jnp.float32) + 0.5) / num_quantiles

  def loss(quantiles: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.asarray(
      rlax.quantile_regression_loss(quantiles, levels, target, 1.0)
    )

  each = jax.vmap(jax.vmap(loss), in_axes=(0, None))(quantiles, target)
  return jnp.sum(each, axis=0)


def take_lowest(distributions: jax.Array, means: jax.Array) -> jax.Array:
  """Of [N, B, M] those [B, M] whose mean [N, B] is the lowest."""
  lowest = jnp.argmin(means, axis=0)
  return jnp.take_along_axis(distributions, lowest[None, :, None], axis=0)[0]


def _cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """Sum over critics [B] of logits [N, B, M] to a constant target [B, M]."""
  target = jax.lax.stop_gradient(target)
  return -jnp.sum(target * jax.nn.log_softmax(logits), axis=(0, 2))
