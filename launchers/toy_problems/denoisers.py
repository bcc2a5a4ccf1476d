"""A small denoiser without observations, and its training."""

from collections.abc import Callable
from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from acme_qsm.types import Params

Loss = Callable[[Params, jax.Array], jax.Array]
"""(params, key) -> the loss []."""

_NUM_FEATURES = 16


def make_denoiser(
  action_size: int,
  hidden_sizes: Sequence[int],
  activation: Callable[[jax.Array], jax.Array],
) -> hk.Transformed:
  """Makes a perceptron over the action and a sinusoidal embedding of the step.

  Args:
    action_size: A.
    hidden_sizes: widths of the hidden layers.
    activation: what follows each of them.

  Returns:
    `init(key, action, step)`, and `apply(params, action, step)`, which maps
    [B, A] and steps [B] or [] to noise predictions [B, A].
  """

  def denoise(action: jax.Array, step: jax.Array) -> jax.Array:
    steps = jnp.broadcast_to(step, action.shape[:1])
    inputs = jnp.concatenate([action, _embed(steps)], axis=-1)
    mlp = hk.nets.MLP([*hidden_sizes, action_size], activation=activation)
    return mlp(inputs)

  return hk.without_apply_rng(hk.transform(denoise))


def _embed(step: jax.Array) -> jax.Array:
  """Maps steps [B] to sines and cosines [B, 16] (Vaswani et al., 2017)."""
  half = _NUM_FEATURES // 2
  frequencies = jnp.power(1e4, -jnp.arange(half) / (half - 1))
  angles = step[:, None] * frequencies
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def train(
  denoiser: hk.Transformed,
  action_size: int,
  loss_fn: Loss,
  seed: int,
  num_steps: int,
  learning_rate: optax.ScalarOrSchedule,
) -> Params:
  """Minimises a denoiser's loss by Adam, with a fresh key at each step.

  Args:
    denoiser: from `make_denoiser`.
    action_size: A.
    loss_fn: what is minimised.
    seed: of the first parameters and of the keys.
    num_steps: gradient steps.
    learning_rate: Adam's, or its schedule.

  Returns:
    The parameters after the last step.
  """
  optimizer = optax.adam(learning_rate)
  init_key, key = jax.random.split(jax.random.key(seed))
  params = denoiser.init(
    init_key, jnp.zeros((1, action_size)), jnp.zeros((1,), int)
  )

  def step(carry, step_key):
    params, opt_state = carry
    gradients = jax.grad(loss_fn)(params, step_key)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  @jax.jit
  def run(params, key):
    carry = params, optimizer.init(params)
    return jax.lax.scan(step, carry, jax.random.split(key, num_steps))[0][0]

  return run(params, key)


def split_key(seed: int, num: int) -> jax.Array:
  """Keys [num] of samples, none of which `train` has of the same seed."""
  # Not by the seed's own key: a small number's may be one that is split off.
  return jax.random.split(
    jax.random.fold_in(jax.random.key(seed), 2**31 - 1), num
  )
