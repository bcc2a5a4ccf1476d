"""How fast the learner's step is, against what the machine can do."""

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import acme_qsm

OBSERVATION_SIZE, ACTION_SIZE = 17, 6
_CHAIN_LENGTH = 24
_Spec = collections.namedtuple("_Spec", "shape dtype minimum maximum")
_EnvironmentSpec = collections.namedtuple(
  "_EnvironmentSpec", "observations actions"
)


def make_config(
  *, num_denoising_steps: int = 5, batch_size: int = 256, width: int = 256
) -> acme_qsm.QSMConfig:
  """The default configuration, with networks of the given size."""
  return acme_qsm.QSMConfig(
    num_denoising_steps=num_denoising_steps,
    batch_size=batch_size,
    samples_per_insert=float(batch_size),
    policy_hidden_sizes=(width, width),
    critic_hidden_sizes=(width, width),
  )


def make_networks(config: acme_qsm.QSMConfig) -> acme_qsm.QSMNetworks:
  """Networks for observations and actions of the sizes above."""
  observations = _Spec((OBSERVATION_SIZE,), np.float32, None, None)
  actions = _Spec((ACTION_SIZE,), np.float32, -1.0, 1.0)
  return acme_qsm.make_networks(_EnvironmentSpec(observations, actions), config)


def make_transitions(*leading: int) -> acme_qsm.Transition:
  """Random transitions with the given leading axes."""
  random = np.random.default_rng(0)

  def draw(*shape: int) -> jax.Array:
    return jnp.asarray(random.normal(size=(*leading, *shape)), jnp.float32)

  return acme_qsm.Transition(
    observation=draw(OBSERVATION_SIZE),
    action=jnp.tanh(draw(ACTION_SIZE)),
    reward=draw(),
    discount=jnp.ones(leading, jnp.float32),
    next_observation=draw(OBSERVATION_SIZE),
  )


def make_limit(batch_size: int, width: int) -> tuple[Callable[[], Any], float]:
  """A chain of the update's main products, each waiting for the one before.

  Returns:
    A function that computes it, and its floating-point operations.
  """
  random = np.random.default_rng(0)
  scale = 1.0 / np.sqrt(width)
  x = jnp.asarray(random.normal(size=(batch_size, width)), jnp.float32)
  weights = [
    jnp.asarray(scale * random.normal(size=(width, width)), jnp.float32)
    for _ in range(4)
  ]

  @jax.jit
  def chain(x: jax.Array, weights: list[jax.Array]) -> jax.Array:
    for i in range(_CHAIN_LENGTH):
      x = x @ weights[i % len(weights)]
    return x

  flops = 2.0 * batch_size * width * width * _CHAIN_LENGTH
  return lambda: chain(x, weights), flops


class Step:
  """A learner whose step is called on the same transitions again and again.

  Attributes:
    flops: XLA's count of a step's floating-point operations.
  """

  def __init__(
    self,
    config: acme_qsm.QSMConfig,
    *,
    num_fused: int = 1,
    num_seeds: int = 1,
  ):
    core = acme_qsm.make_learner_core(make_networks(config), config)
    batch = make_transitions(config.batch_size)
    keys = jax.random.split(jax.random.key(0), num_seeds)
    # What XLA counts of a loop is one turn of it: count one step.
    one = jax.eval_shape(core.init, keys[0])
    cost: Any = jax.jit(core.step).lower(one, batch).compile().cost_analysis()
    self.flops = float(cost["flops"])
    if num_seeds == 1:
      self._state = jax.jit(core.init)(keys[0])
      step = core.step
    else:
      self._state = jax.jit(jax.vmap(core.init))(keys)
      step = jax.vmap(core.step)
      batch = make_transitions(num_seeds, config.batch_size)
    if num_fused > 1:
      one_step, axes = step, (num_fused,)
      batch = make_transitions(*axes, *batch.reward.shape)

      def step(state, batches):
        return jax.lax.scan(one_step, state, batches)

    self._batch = batch
    self._step = jax.jit(step, donate_argnums=0)

  def __call__(self) -> Any:
    """Makes a step; returns its metrics."""
    self._state, metrics = self._step(self._state, self._batch)
    return metrics
