"""Makes the networks of an environment as pure functions."""

import dataclasses
from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp

from acme_qsm import specs
from acme_qsm import types
from acme_qsm.networks.config import CriticHead
from acme_qsm.networks.config import DenoiserConfig
from acme_qsm.networks.critics import Critic
from acme_qsm.networks.critics import expected_value
from acme_qsm.networks.critics import output_size
from acme_qsm.networks.denoiser import Denoiser

DenoiserFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Haiku code: (observation [B, ...], noisy_action [B, A], step [B] or [])
-> noise prediction [B, A]."""

CriticFn = Callable[[jax.Array, jax.Array], jax.Array]
"""Haiku code: (observation [B, ...], action [B, A]) -> Q-values [B]; or what
the head is made of [B, H] where `critic_head` is not "scalar"."""


@dataclasses.dataclass(frozen=True)
class DiffusionNetworks:
  """Pure functions of the networks; any library's networks will do.

  Attributes:
    init_denoiser: key -> parameters.
    denoise: (params, observation [B, ...], noisy_action [B, A], step [B] or
      []) -> noise prediction [B, A].
    init_critics: key -> parameters of all N critics.
    criticize: (params, observation [B, ...], action [B, A]) -> Q-values
      [N, B].
    action_size: A.
    num_denoising_steps: T, the steps that the denoiser knows; None if it takes
      any. A learner or a policy that wants others is refused.
    critic_outputs: as criticize, but what the critics' heads are made of [N, B,
      H], of which Q is the mean: logits of the atoms, or quantiles; None where
      they predict Q itself.
    observation_shape: an observation's shape; None if it does not matter, which
      it does where observations are normalised.
    critic_head: what the critics predict; None, as those below, if it is not
      known. A learner whose configuration says otherwise is refused.
    num_atoms: returns of categorical critics.
    min_value: the lowest of them.
    max_value: the highest of them.
    num_quantiles: quantiles of quantile critics.
  """

  init_denoiser: Callable[[jax.Array], types.Params]
  denoise: Callable[[types.Params, jax.Array, jax.Array, jax.Array], jax.Array]
  init_critics: Callable[[jax.Array], types.Params]
  criticize: Callable[[types.Params, jax.Array, jax.Array], jax.Array]
  action_size: int
  num_denoising_steps: int | None = None
  critic_outputs: (
    Callable[[types.Params, jax.Array, jax.Array], jax.Array] | None
  ) = None
  observation_shape: tuple[int, ...] | None = None
  critic_head: CriticHead | None = None
  num_atoms: int | None = None
  min_value: float | None = None
  max_value: float | None = None
  num_quantiles: int | None = None

  @property
  def init_policy(self) -> Callable[[jax.Array], types.Params]:
    """What the training step asks of every method's networks."""
    return self.init_denoiser


QSMNetworks = DiffusionNetworks
"""Their name while there was one method."""


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
  (action_size,) = environment_spec.actions.shape
  denoiser_fn = denoiser or (lambda *args: Denoiser(action_size, config)(*args))
  scalar = config.critic_head == "scalar"
  critic_fn = critic or (
    (lambda *args: Critic(config)(*args)[..., 0])
    if scalar
    else (lambda *args: Critic(config)(*args))
  )
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

  apply_critics = jax.vmap(critic_net.apply, in_axes=(0, None, None))

  def criticize(
    params: types.Params, observation: jax.Array, action: jax.Array
  ) -> jax.Array:
    return expected_value(config, apply_critics(params, observation, action))

  networks = DiffusionNetworks(
    init_denoiser=lambda key: denoiser_net.init(key, observation, action, step),
    denoise=denoiser_net.apply,
    init_critics=init_critics,
    criticize=criticize,
    action_size=action_size,
    num_denoising_steps=None if denoiser else config.num_denoising_steps,
    critic_outputs=None if scalar else apply_critics,
    observation_shape=tuple(environment_spec.observations.shape),
    critic_head=config.critic_head,
    num_atoms=config.num_atoms,
    min_value=config.min_value,
    max_value=config.max_value,
    num_quantiles=config.num_quantiles,
  )
  _check_output(
    "denoiser",
    networks.init_denoiser,
    networks.denoise,
    (observation, action, step),
    (2, action_size),
  )
  _check_output(
    "critic",
    networks.init_critics,
    apply_critics,
    (observation, action),
    (config.num_critics, 2, *(() if scalar else (output_size(config),))),
  )
  return networks


def _check_output(
  name: str,
  init: Callable[[jax.Array], types.Params],
  apply: Callable[..., jax.Array],
  inputs: tuple[jax.Array, ...],
  expected: tuple[int, ...],
) -> None:
  """Raises ValueError unless a network's output has the right shape."""
  params = jax.eval_shape(init, jax.ShapeDtypeStruct((2,), jnp.uint32))
  # Two examples, so that an output without a batch axis cannot pass for one.
  batch = [jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype) for x in inputs]
  output = jax.eval_shape(apply, params, *batch)
  got = getattr(output, "shape", output)
  if got != expected:
    raise ValueError(
      f"The {name} must return shape {expected} for a batch of 2 examples, got "
      f"{got}."
    )
