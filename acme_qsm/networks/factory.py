"""The denoiser and the critics, in Haiku."""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import specs
from acme_qsm import types
from acme_qsm.config import QSMConfig

DenoiserFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Haiku code: (observation [B, ...], noisy_action [B, A], step [B] or [])
-> noise prediction [B, A]."""

CriticFn = Callable[[jax.Array, jax.Array], jax.Array]
"""Haiku code: (observation [B, ...], action [B, A]) -> Q-values [B]."""


@dataclasses.dataclass(frozen=True)
class QSMNetworks:
  """Pure functions of the networks; any library's networks will do.

  Attributes:
    init_denoiser: key -> parameters.
    denoise: (params, observation [B, ...], noisy_action [B, A], step [B] or
      []) -> noise prediction [B, A].
    init_critics: key -> parameters of all N critics.
    criticize: (params, observation [B, ...], action [B, A]) -> Q-values
      [N, B].
    action_size: A.
  """

  init_denoiser: Callable[[jax.Array], types.Params]
  denoise: Callable[[types.Params, jax.Array, jax.Array, jax.Array], jax.Array]
  init_critics: Callable[[jax.Array], types.Params]
  criticize: Callable[[types.Params, jax.Array, jax.Array], jax.Array]
  action_size: int


_INITIALIZER = hk.initializers.VarianceScaling(1.0, "fan_avg", "uniform")


@jax.custom_jvp
def mish(x: jax.Array) -> jax.Array:
  """X tanh(softplus(x)) (Misra, 2019, https://arxiv.org/abs/1908.08681).

  With one exponential, by tanh(log(1 + e)) = e (e + 2) / (e (e + 2) + 2): five
  to ten times as fast on a CPU as `jax.nn.mish`, which has four.
  """
  # Nothing is beyond infinity: this changes no value. But XLA now sees an
  # element used at every place, and so does not write the result over x. Its
  # loops that do are not vectorised on a CPU, and eight times as slow.
  first = x[(slice(0, 1),) * x.ndim]
  x = jnp.where(first > jnp.inf, first, x)
  numerator, denominator = _mish_factor(_exponential(x))
  return x * (numerator / denominator)


@mish.defjvp
def _mish_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  (x,), (x_tangent,) = primals, tangents
  e = _exponential(x)
  numerator, denominator = _mish_factor(e)
  inverse = 1.0 / denominator
  factor = numerator * inverse
  # In this order no product is infinite.
  slope = factor + x * (4.0 * e * (e + 1.0) * inverse * inverse)
  return x * factor, slope * x_tangent


def _exponential(x: jax.Array) -> jax.Array:
  # Beyond 20 mish's factor is one in single precision; this keeps e finite.
  return jnp.exp(jnp.minimum(x, 20.0))


def _mish_factor(e: jax.Array) -> tuple[jax.Array, jax.Array]:
  numerator = e * (e + 2.0)
  return numerator, numerator + 2.0


class Lookup(NamedTuple):
  """Rows of a table, one for each example, not yet looked up.

  Attributes:
    table: [N, D].
    rows: [...] integers in 0 .. N - 1.
  """

  table: jax.Array
  rows: jax.Array

  def project(self, weights: jax.Array) -> jax.Array:
    """The rows times weights [D, E]: [..., E]."""
    table = self.table @ weights
    # Not table[rows], whose gradient adds row by row, slowly on a CPU.
    return jax.nn.one_hot(self.rows, table.shape[0]) @ table


class Perceptron(hk.Module):
  """A multi-layer perceptron over the concatenation of its inputs.

  The first layer projects each input by itself and adds the results, which is
  the same function; so what does not change between denoising steps is
  projected once, and what is looked up in a table only as often as the table
  has rows.
  """

  def __init__(
    self,
    hidden_sizes: Sequence[int],
    output_size: int,
    activation: Callable[[jax.Array], jax.Array],
    name: str | None = None,
  ):
    super().__init__(name=name)
    self._hidden_sizes = hidden_sizes
    self._output_size = output_size
    self._activation = activation

  def __call__(self, *inputs: jax.Array | Lookup) -> jax.Array:
    """Maps inputs [..., D_i] to [..., output_size]; leading axes broadcast."""
    sizes = [
      (x.table if isinstance(x, Lookup) else x).shape[-1] for x in inputs
    ]
    fan_in = sum(sizes)
    width = self._hidden_sizes[0]
    # Xavier-uniform for the layer as a whole, not for each part of it.
    bound = np.sqrt(6.0 / (fan_in + width))
    initializer = hk.initializers.RandomUniform(-bound, bound)
    hidden = hk.get_parameter("first_bias", [width], init=jnp.zeros)
    for i, (x, size) in enumerate(zip(inputs, sizes, strict=True)):
      weights = hk.get_parameter(
        f"first_weights_{i}", [size, width], init=initializer
      )
      projected = x.project(weights) if isinstance(x, Lookup) else x @ weights
      hidden = hidden + projected
    hidden = self._activation(hidden)
    for size in self._hidden_sizes[1:]:
      hidden = self._activation(hk.Linear(size, w_init=_INITIALIZER)(hidden))
    return hk.Linear(self._output_size, w_init=_INITIALIZER)(hidden)


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
    self, action_size: int, config: QSMConfig, name: str | None = None
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


def make_networks(
  environment_spec: types.EnvironmentSpec,
  config: QSMConfig,
  *,
  denoiser: DenoiserFn | None = None,
  critic: CriticFn | None = None,
) -> QSMNetworks:
  """Makes the networks for an environment.

  Args:
    environment_spec: the environment's spec: `actions` bounded to [-1, 1], of
      shape [A].
    config: sizes of the networks.
    denoiser: Haiku code to use in place of `Denoiser`, for example
      `lambda observation, action, step: MyModule()(observation, action, step)`.
    critic: Haiku code to use in place of `Critic`, called for each of the
      `config.num_critics` critics with parameters of its own.

  Returns:
    The networks.

  Raises:
    ValueError: if the spec is not one that this library can act in, or a
      network's output does not have the shape that it must.
  """
  specs.validate_environment_spec(
    environment_spec, flat_observation=denoiser is None or critic is None
  )
  (action_size,) = environment_spec.actions.shape
  denoiser_fn = denoiser or (lambda *args: Denoiser(action_size, config)(*args))
  critic_fn = critic or (lambda *args: Critic(config)(*args))
  denoiser_net = hk.without_apply_rng(hk.transform(denoiser_fn))
  critic_net = hk.without_apply_rng(hk.transform(critic_fn))

  observation = jnp.zeros(
    (1, *environment_spec.observations.shape),
    environment_spec.observations.dtype,
  )
  action = jnp.zeros((1, action_size), jnp.float32)
  step = jnp.zeros((1,), jnp.int32)

  def init_critics(key: jax.Array) -> types.Params:
    keys = jax.random.split(key, config.num_critics)
    return jax.vmap(lambda k: critic_net.init(k, observation, action))(keys)

  networks = QSMNetworks(
    init_denoiser=lambda key: denoiser_net.init(key, observation, action, step),
    denoise=denoiser_net.apply,
    init_critics=init_critics,
    criticize=jax.vmap(critic_net.apply, in_axes=(0, None, None)),
    action_size=action_size,
  )
  _check_outputs(networks, observation, action, step, config.num_critics)
  return networks


def _check_outputs(
  networks: QSMNetworks,
  observation: jax.Array,
  action: jax.Array,
  step: jax.Array,
  num_critics: int,
) -> None:
  """Raises ValueError unless the networks' outputs have the right shapes."""
  key = jax.ShapeDtypeStruct((2,), jnp.uint32)
  # Two examples, so that an output without a batch axis cannot pass for one.
  observations, actions, steps = (
    jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype)
    for x in (observation, action, step)
  )

  def check(name, init, apply, inputs, expected):
    params = jax.eval_shape(init, key)
    output = jax.eval_shape(apply, params, *inputs)
    got = getattr(output, "shape", output)
    if got != expected:
      raise ValueError(
        f"The {name} must return shape {expected} for a batch "
        f"of 2 examples, got {got}."
      )

  check(
    "denoiser",
    networks.init_denoiser,
    networks.denoise,
    (observations, actions, steps),
    actions.shape,
  )
  check(
    "critic",
    networks.init_critics,
    networks.criticize,
    (observations, actions),
    (num_critics, 2),
  )
