"""Makes the critics of an environment, which every method has."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm import types
from acme_qsm.configs.networks import CriticHead
from acme_qsm.configs.networks import NetworksConfig
from acme_qsm.networks.heads import expected_value
from acme_qsm.networks.heads import output_size
from acme_qsm.networks.modules import Critic

CriticFn = Callable[[jax.Array, jax.Array], jax.Array]
"""Haiku code: (observation [B, ...], action [B, A]) -> Q-values [B]; or what
the head is made of [B, H] where `critic_head` is not "scalar"."""


# Not Callables: type checkers take an inherited Callable for a method.
class _Init(Protocol):
  def __call__(self, key: jax.Array, /) -> types.Params: ...


class _QValues(Protocol):
  def __call__(
    self,
    params: types.Params,
    observation: jax.Array,
    action: jax.Array,
    /,
  ) -> jax.Array: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticNetworks:
  """Pure functions of critics; any library's networks will do.

  Attributes:
    init_critics: key -> parameters of all N critics.
    q_values: (params, observation [B, ...], action [B, A]) -> Q-values
      [N, B].
    action_size: A.
    critic_outputs: as q_values, but what the critics' heads are made of [N, B,
      H], of which Q is the mean: logits of the atoms, or quantiles; None where
      they predict Q itself.
    observation_shape: an observation's shape; None if it does not matter, which
      it does where observations are normalised, or the policy is not updated at
      each step.
    critic_head: what the critics predict; None, as those below, if it is not
      known. A learner whose configuration says otherwise is refused.
    num_atoms: returns of categorical critics.
    min_value: the lowest of them.
    max_value: the highest of them.
    num_quantiles: quantiles of quantile critics.
  """

  init_critics: _Init
  q_values: _QValues
  action_size: int
  critic_outputs: _QValues | None = None
  observation_shape: tuple[int, ...] | None = None
  critic_head: CriticHead | None = None
  num_atoms: int | None = None
  min_value: float | None = None
  max_value: float | None = None
  num_quantiles: int | None = None


def make_critics(
  environment_spec: types.EnvironmentSpecLike,
  config: NetworksConfig,
  critic: CriticFn | None = None,
) -> CriticNetworks:
  """Makes the critics for an environment whose spec is valid.

  Args:
    environment_spec: the environment's spec.
    config: sizes of the critics.
    critic: Haiku code to use in place of `Critic`, called for each of the
      `config.num_critics` critics with parameters of its own.

  Returns:
    The critics.

  Raises:
    ValueError: if their output does not have the shape that it must.
  """
  (action_size,) = environment_spec.actions.shape
  scalar = config.critic_head == "scalar"
  critic_fn = critic or (
    (lambda *args: Critic(config)(*args)[..., 0])
    if scalar
    else (lambda *args: Critic(config)(*args))
  )
  critic_net = hk.without_apply_rng(hk.transform(critic_fn))
  observation, action = examples(environment_spec)

  def init_critics(key: jax.Array) -> types.Params:
    keys = jax.random.split(key, config.num_critics)
    return jax.vmap(lambda k: critic_net.init(k, observation, action))(keys)

  apply_critics = jax.vmap(critic_net.apply, in_axes=(0, None, None))

  def q_values(
    params: types.Params, observation: jax.Array, action: jax.Array
  ) -> jax.Array:
    return expected_value(config, apply_critics(params, observation, action))

  check_output(
    "critic",
    init_critics,
    apply_critics,
    (observation, action),
    (config.num_critics, 2, *(() if scalar else (output_size(config),))),
  )
  return CriticNetworks(
    init_critics=init_critics,
    q_values=q_values,
    action_size=action_size,
    critic_outputs=None if scalar else apply_critics,
    observation_shape=tuple(environment_spec.observations.shape),
    critic_head=config.critic_head,
    num_atoms=config.num_atoms,
    min_value=config.min_value,
    max_value=config.max_value,
    num_quantiles=config.num_quantiles,
  )


def examples(
  environment_spec: types.EnvironmentSpecLike,
) -> tuple[jax.Array, jax.Array]:
  """An observation [1, ...] and an action [1, A] to initialise networks by."""
  observations = environment_spec.observations
  (action_size,) = environment_spec.actions.shape
  return (
    jnp.zeros((1, *observations.shape), observations.dtype),
    jnp.zeros((1, action_size), jnp.float32),
  )


def check_output(
  name: str,
  init: Callable[[jax.Array], types.Params],
  apply: Callable[..., jax.Array],
  inputs: tuple[jax.Array, ...],
  expected: tuple[int, ...],
) -> None:
  """Finds out whether a network's output has the right shape.

  Args:
    name: what the network is called.
    init: key -> its parameters.
    apply: (params, *inputs) -> its output.
    inputs: examples, of one row each.
    expected: the output's shape for two rows.

  Raises:
    ValueError: if it has another.
  """
  # Of whatever kind of keys JAX makes.
  params = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.PRNGKey(0)))
  # Two examples, so that an output without a batch axis cannot pass for one.
  batch = [jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for x in inputs]
  output = jax.eval_shape(apply, params, *batch)
  got = getattr(output, "shape", output)
  if got != expected:
    raise ValueError(
      f"The {name} must return shape {expected} for a batch of 2 examples, got "
      f"{got}."
    )
