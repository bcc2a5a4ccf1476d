"""The critics, in Haiku."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm.configs.networks import NetworksConfig
from acme_qsm.networks.layers import Perceptron
from acme_qsm.networks.layers import ResidualPerceptron


class Critic(hk.Module):
  """Q(s, a), or what the distribution of the return is made of."""

  def __init__(self, config: NetworksConfig, name: str | None = None):
    super().__init__(name=name)
    self._config = config

  def __call__(self, observation: jax.Array, action: jax.Array) -> jax.Array:
    """Maps [B, O] and [B, A] to the head's outputs [B, H]."""
    config = self._config
    sizes, outputs = config.critic_hidden_sizes, output_size(config)
    if config.critic_body == "simba":
      body = ResidualPerceptron(sizes[0], len(sizes), outputs)
    else:
      body = Perceptron(
        sizes,
        outputs,
        jax.nn.relu,
        normalize=config.critic_body == "layer_norm",
      )
    return body(observation, action)


def output_size(config: NetworksConfig) -> int:
  """H, what a critic's head returns for one example."""
  return {
    "scalar": 1,
    "categorical": config.num_atoms,
    "quantile": config.num_quantiles,
  }[config.critic_head]


def make_atoms(config: NetworksConfig) -> np.ndarray:
  """The returns [num_atoms] of a categorical critic, evenly spaced."""
  return np.linspace(
    config.min_value, config.max_value, config.num_atoms, dtype=np.float32
  )


def expected_value(config: NetworksConfig, outputs: jax.Array) -> jax.Array:
  """Q from a head's outputs.

  Args:
    config: which head.
    outputs: [...] Q itself, or [..., H] logits of the atoms or quantiles.

  Returns:
    Q [...].
  """
  if config.critic_head == "scalar":
    return outputs
  if config.critic_head == "categorical":
    return jax.nn.softmax(outputs) @ make_atoms(config)
  return jnp.mean(outputs, axis=-1)
