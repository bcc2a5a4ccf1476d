"""A Gaussian policy, squashed into the box, in Haiku and as pure functions."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm import specs
from acme_qsm import types
from acme_qsm.configs.networks import NetworksConfig
from acme_qsm.networks.critic_networks import check_output
from acme_qsm.networks.critic_networks import CriticFn
from acme_qsm.networks.critic_networks import CriticNetworks
from acme_qsm.networks.critic_networks import examples
from acme_qsm.networks.critic_networks import make_critics
from acme_qsm.networks.layers import Perceptron

# Bounds of log_std.
_LOWEST, _HIGHEST = -5.0, 2.0


class Gaussian(NamedTuple):
  """Independent normals, of actions before they are squashed by tanh.

  Attributes:
    mean: [B, A].
    log_std: [B, A] logarithms of the standard deviations.
  """

  mean: jax.Array
  log_std: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianNetworks(CriticNetworks):
  """Pure functions of the networks; any library's networks will do.

  Attributes:
    init_policy: key -> the policy's parameters.
    propose: (params, observation [B, ...]) -> the actions' distribution before
      tanh.
  """

  init_policy: Callable[[jax.Array], types.Params]
  propose: Callable[[types.Params, jax.Array], Gaussian]


def make_gaussian_networks(
  environment_spec: types.EnvironmentSpecLike,
  config: NetworksConfig,
  *,
  critic: CriticFn | None = None,
) -> GaussianNetworks:
  """Makes the networks of a Gaussian policy for an environment.

  Args:
    environment_spec: the environment's spec: `actions` bounded to [-1, 1], of
      shape [A].
    config: sizes of the networks.
    critic: see `make_critics`.

  Returns:
    The networks.

  Raises:
    ValueError: if the spec is not one that this library can act in, or a
      critic's output does not have the shape that it must.
  """
  specs.validate_environment_spec(environment_spec)
  critics = make_critics(environment_spec, config, critic)
  observation, _ = examples(environment_spec)

  def policy(observation: jax.Array) -> jax.Array:
    return Perceptron(
      config.policy_hidden_sizes, 2 * critics.action_size, jax.nn.relu
    )(observation)

  net = hk.without_apply_rng(hk.transform(policy))

  def init_policy(key: jax.Array) -> types.Params:
    return net.init(key, observation)

  def propose(params: types.Params, observation: jax.Array) -> Gaussian:
    mean, log_std = jnp.split(net.apply(params, observation), 2, axis=-1)
    # Bounded by tanh: outside of its bounds, a clip would have no gradient.
    share = 0.5 * (1.0 + jnp.tanh(log_std))
    return Gaussian(mean, _LOWEST + share * (_HIGHEST - _LOWEST))

  check_output(
    "policy",
    init_policy,
    lambda params, *args: propose(params, *args).mean,
    (observation,),
    (2, critics.action_size),
  )
  return GaussianNetworks(
    **vars(critics), init_policy=init_policy, propose=propose
  )
