"""Running statistics, of observations above all, in the training state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_qsm import types

# Lower variances count as this: a feature that never changes stays small.
_LEAST_VARIANCE = 1e-6
# A feature that hardly ever changed may later be any number of its deviations
# away from its mean: networks see it clipped to this many. Stable-Baselines3's
# `VecNormalize` has the same bound.
LARGEST_NORMALIZED = 10.0


class Statistics(NamedTuple):
  """Mean and variance of all observations seen.

  Attributes:
    num_seen: [] how many there were.
    mean: [...] their mean.
    variance: [...] their variance; one before there are any.
  """

  num_seen: jax.Array
  mean: jax.Array
  variance: jax.Array


def init_statistics(shape: tuple[int, ...]) -> Statistics:
  """Statistics of no observations yet: normalising by them changes nothing."""
  return Statistics(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def update_statistics(
  statistics: Statistics, observation: jax.Array
) -> Statistics:
  """Takes a batch of observations into account.

  Args:
    statistics: those before.
    observation: [B, ...] observations.

  Returns:
    Those of all observations.
  """
  batch_count = observation.shape[0]
  count = statistics.num_seen + batch_count
  # The variance before the first batch is 1; its weight is 0.
  mean, variance = mix_moments(
    statistics.mean, statistics.variance, observation, batch_count / count
  )
  return Statistics(count, mean, variance)


def observe(
  statistics: Statistics | None, transitions: types.Transition
) -> tuple[Statistics | None, types.Transition]:
  """Normalises the observations of transitions, which count from now on.

  Args:
    statistics: of the observations before; None to normalise nothing.
    transitions: with observations and next observations [B, ...].

  Returns:
    The statistics of all observations, and the transitions.
  """
  if statistics is None:
    return None, transitions
  statistics = update_statistics(statistics, transitions.observation)
  return statistics, transitions._replace(
    observation=normalize(statistics, transitions.observation),
    next_observation=normalize(statistics, transitions.next_observation),
  )


def mix_moments(
  mean: jax.Array,
  variance: jax.Array,
  values: jax.Array,
  share: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Mean and variance of a whole of which a batch of values is a share.

  Those of two parts put together (Chan et al., 1979), by deviations from the
  means: a mean square less the square of the mean would lose a variance that is
  small beside the mean.

  Args:
    mean: [...] of the other part.
    variance: [...] of the other part.
    values: [B, ...] the batch.
    share: the batch's share of the whole, in (0, 1].

  Returns:
    The whole's mean and variance [...].
  """
  difference = jnp.mean(values, axis=0) - mean
  mixed = (1.0 - share) * variance + share * jnp.var(values, axis=0)
  return (
    mean + share * difference,
    mixed + share * (1.0 - share) * jnp.square(difference),
  )


def normalize(
  statistics: Statistics | None, observation: jax.Array
) -> jax.Array:
  """Takes the mean off, divides by the standard deviation, and clips.

  Args:
    statistics: the observations'; None to leave them as they are.
    observation: [B, ...] observations.

  Returns:
    Normalised observations [B, ...], within +-`LARGEST_NORMALIZED`.
  """
  if statistics is None:
    return observation
  deviation = jnp.sqrt(jnp.maximum(statistics.variance, _LEAST_VARIANCE))
  return jnp.clip(
    (observation - statistics.mean) / deviation,
    -LARGEST_NORMALIZED,
    LARGEST_NORMALIZED,
  )
