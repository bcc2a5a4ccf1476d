"""Heads of critics: what they return, and Q by it."""

import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm.configs.networks import NetworksConfig


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
