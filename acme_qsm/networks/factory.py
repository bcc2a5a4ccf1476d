"""Makes the networks of a diffusion policy as pure functions."""

import dataclasses
from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm import specs
from acme_qsm import types
from acme_qsm.configs.networks import DenoiserConfig
from acme_qsm.networks.critic_networks import check_output
from acme_qsm.networks.critic_networks import CriticFn
from acme_qsm.networks.critic_networks import CriticNetworks
from acme_qsm.networks.critic_networks import examples
from acme_qsm.networks.critic_networks import make_critics
from acme_qsm.networks.modules import Denoiser

DenoiserFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Haiku code: (observation [B, ...], noisy_action [B, A], step [B] or [])
-> noise prediction [B, A]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionNetworks(CriticNetworks):
  """Pure functions of the networks; any library's networks will do.

  Attributes:
    init_denoiser: key -> parameters.
    denoise: (params, observation [B, ...], noisy_action [B, A], step [B] or
      []) -> noise prediction [B, A].
    num_denoising_steps: T, the steps that the denoiser knows; None if it takes
      any. A learner or a policy that wants others is refused.
  """

  init_denoiser: Callable[[jax.Array], types.Params]
  denoise: Callable[[types.Params, jax.Array, jax.Array, jax.Array], jax.Array]
  num_denoising_steps: int | None = None

  @property
  def init_policy(self) -> Callable[[jax.Array], types.Params]:
    """What the training step asks of every method's networks."""
    return self.init_denoiser


QSMNetworks = DiffusionNetworks
"""The former name of `DiffusionNetworks`."""


def make_networks(
  environment_spec: types.EnvironmentSpecLike,
  config: DenoiserConfig,
  *,
  denoiser: DenoiserFn | None = None,
  critic: CriticFn | None = None,
) -> DiffusionNetworks:
  """Makes the networks of a diffusion policy for an environment.

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
  critics = make_critics(environment_spec, config, critic)
  denoiser_fn = denoiser or (
    lambda *args: Denoiser(critics.action_size, config)(*args)
  )
  denoiser_net = hk.without_apply_rng(hk.transform(denoiser_fn))
  inputs = (*examples(environment_spec), jnp.zeros((1,), jnp.int32))
  networks = DiffusionNetworks(
    **vars(critics),
    init_denoiser=lambda key: denoiser_net.init(key, *inputs),
    denoise=denoiser_net.apply,
    num_denoising_steps=None if denoiser else config.num_denoising_steps,
  )
  check_output(
    "denoiser",
    networks.init_denoiser,
    networks.denoise,
    inputs,
    (2, networks.action_size),
  )
  return networks
