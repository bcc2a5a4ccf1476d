"""Running statistics of observations, as a part of the training state."""

from __future__ import annotations

from typing import NamedTuple

from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp

# A standard deviation below this is taken for it: a constant stays small.
_LEAST_VARIANCE = 1e-6


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

  The mean and the variance of all are those of two parts put together (Chan et
  al., 1979).

  Args:
    statistics: those before.
    observation: [B, ...] observations.

  Returns:
    Those of all observations.
  """
  batch_count = observation.shape[0]
  count = statistics.num_seen + batch_count
  share = batch_count / count
  difference = jnp.mean(observation, axis=0) - statistics.mean
  # One stands for the variance of none, and has no weight.
  variance = (1.0 - share) * statistics.variance + share * jnp.var(
    observation, axis=0
  )
  return Statistics(
    num_seen=count,
    mean=statistics.mean + share * difference,
    variance=variance + share * (1.0 - share) * jnp.square(difference),
  )


def normalize(
  statistics: Statistics | None, observation: jax.Array
) -> jax.Array:
  """Takes the mean off and divides by the standard deviation.

  Args:
    statistics: the observations'; None to leave them as they are.
    observation: [B, ...] observations.

  Returns:
    Normalised observations [B, ...].
  """
  if statistics is None:
    return observation
  deviation = jnp.sqrt(jnp.maximum(statistics.variance, _LEAST_VARIANCE))
  return (observation - statistics.mean) / deviation
