"""The critics, in Haiku."""

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm.networks.layers import Perceptron


class Critic(hk.Module):
  """Q(s, a)."""

  def __init__(self, hidden_sizes: Sequence[int], name: str | None = None):
    super().__init__(name=name)
    self._hidden_sizes = hidden_sizes

  def __call__(self, observation: jax.Array, action: jax.Array) -> jax.Array:
    """Maps [B, O] and [B, A] to Q-values [B]."""
    perceptron = Perceptron(self._hidden_sizes, 1, jax.nn.relu)
    values = perceptron(observation, action)
    return jnp.squeeze(values, axis=-1)
