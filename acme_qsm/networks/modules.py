"""The denoiser and the critic, in Haiku."""

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm.configs.networks import DenoiserConfig
from acme_qsm.configs.networks import NetworksConfig
from acme_qsm.networks.heads import output_size
from acme_qsm.networks.layers import Lookup
from acme_qsm.networks.layers import mish
from acme_qsm.networks.layers import Perceptron
from acme_qsm.networks.layers import ResidualPerceptron


class FourierTimeEmbedding(hk.Module):
  """Embeds denoising steps by learnable Fourier features and a perceptron.

  As in the official implementation of Q-score matching: frequencies w ~ N(0,
  0.2^2), features cos and sin of 2 pi t w, then two layers with a mish between.
  """

  def __init__(
    self, num_steps: int, size: int, hidden_size: int, name: str | None = None
  ):
    super().__init__(name=name)
    self._num_steps = num_steps
    self._size = size
    self._hidden_size = hidden_size

  def __call__(self, step: jax.Array) -> Lookup:
    """Embeds steps [...] in 0 .. num_steps - 1: rows of hidden_size."""
    # There are far fewer denoising steps than examples: embed every step once.
    steps = jnp.arange(self._num_steps, dtype=jnp.float32)
    frequencies = hk.get_parameter(
      "frequencies",
      [self._size // 2],
      init=hk.initializers.RandomNormal(0.2),
    )
    angles = 2.0 * jnp.pi * steps[:, None] * frequencies
    features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
    table = Perceptron([self._hidden_size], self._hidden_size, mish)(features)
    return Lookup(table, step)


class Denoiser(hk.Module):
  """Predicts the noise in an action, given the observation and the step."""

  def __init__(
    self,
    action_size: int,
    config: DenoiserConfig,
    name: str | None = None,
  ):
    super().__init__(name=name)
    self._action_size = action_size
    self._config = config

  def __call__(
    self, observation: jax.Array, noisy_action: jax.Array, step: jax.Array
  ) -> jax.Array:
    """Maps [B, O], [B, A] and steps [B] or [] to noise predictions [B, A]."""
    time = FourierTimeEmbedding(
      self._config.num_denoising_steps,
      self._config.time_embedding_size,
      self._config.time_hidden_size,
    )(step)
    return Perceptron(
      self._config.policy_hidden_sizes, self._action_size, mish
    )(noisy_action, observation, time)


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
