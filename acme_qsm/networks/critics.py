"""The critics, in Haiku."""

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm.core.config import QSMConfig
from acme_qsm.networks.layers import Perceptron


class Critic(hk.Module):
  """Q(s, a)."""

  def __init__(self, config: QSMConfig, name: str | None = None):
    super().__init__(name=name)
    self._config = config

  def __call__(self, observation: jax.Array, action: jax.Array) -> jax.Array:
    """Maps [B, O] and [B, A] to Q-values [B]."""
    values = Perceptron(self._config.critic_hidden_sizes, 1, jax.nn.relu)(
      observation, action
    )
    return jnp.squeeze(values, axis=-1)
