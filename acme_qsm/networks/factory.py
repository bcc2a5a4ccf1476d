"""Makes the networks of an environment as pure functions."""

import dataclasses
from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm import specs
from acme_qsm import types
from acme_qsm.core.config import QSMConfig
from acme_qsm.networks.critics import Critic
from acme_qsm.networks.denoiser import Denoiser

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
