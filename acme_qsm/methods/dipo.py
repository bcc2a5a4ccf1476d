"""Diffusion policies for online learning, DIPO (Yang et al., 2023).

arXiv:2305.13122: replay's actions are moved up the critics' action gradient,
and the denoiser learns the moved ones. No gradient flows through the sampler.

An embedded replay keeps the moved actions beside the executed ones, which the
critics learn from: they move on from where they are whenever they are sampled.
What Reverb holds never changes: there, each update moves the executed actions
anew.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import types
from acme_qsm.core import critics
from acme_qsm.core import policy_samples
from acme_qsm.core import sampling
from acme_qsm.core.config import DiffusionConfig
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.core.method import UpdateExtras
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp
from acme_qsm.deferred import optax

if typing.TYPE_CHECKING:
  from acme_qsm.networks import DiffusionNetworks


@dataclasses.dataclass(frozen=True)
class DIPOConfig(DiffusionConfig):
  """Everything that DIPO can be told.

  Attributes:
    num_action_moves: N_a, steps of Adam that an action is moved by; each is one
      gradient of the critics.
    action_learning_rate: Adam's, about the size of each step in [-1, 1].
    keep_moved_actions: whether an embedded replay keeps them.
  """

  sampler: diffusion.TransitionName = "posterior"
  num_action_moves: int = configuration.positive(10)
  action_learning_rate: float = configuration.positive(0.03)
  keep_moved_actions: bool = True

  @property
  def keeps_extras(self) -> bool:
    """See `ActorCriticConfig`."""
    return self.keep_moved_actions


def make_policy_loss(
  networks: DiffusionNetworks, config: DIPOConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: how actions are moved.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  schedule = sampling.make_schedule(networks, config)
  move = _make_move(networks, config)

  def policy_loss(
    params: types.Params,
    method_state: tuple,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[tuple, types.Metrics]]:
    observation, action = transitions.observation, transitions.action

    if types.are_given(transitions.extras):
      moved = transitions.extras
    else:
      moved = move(context.critic_params, observation, action)
    loss, _ = policy_samples.denoising_loss(
      networks,
      schedule,
      params,
      keys[0],
      observation,
      moved[:, None],
      jnp.ones((moved.shape[0], 1)),
    )
    metrics = {
      "denoiser_loss": loss,
      "moved_distance": jnp.sqrt(jnp.mean(jnp.square(moved - action))),
    }
    return loss, (method_state, metrics)

  return policy_loss


def make_update_extras(
  networks: DiffusionNetworks, config: DIPOConfig
) -> UpdateExtras | None:
  """Makes what moves the actions that replay keeps on: see `Method`."""
  if not config.keep_moved_actions:
    return None
  move = _make_move(networks, config)
  return lambda critic_params, transitions: move(
    critic_params, transitions.observation, transitions.extras
  )


def _make_move(
  networks: DiffusionNetworks, config: DIPOConfig
) -> Callable[[types.Params, jax.Array, jax.Array], jax.Array]:
  """Makes (critics' parameters, observation, action) -> moved action."""

  def move(
    critic_params: types.Params, observation: jax.Array, action: jax.Array
  ) -> jax.Array:
    return move_actions(
      config,
      lambda action: critics.action_gradient(
        networks, critic_params, observation, action, "lowest"
      ),
      action,
    )

  return move


def move_actions(
  config: DIPOConfig,
  gradient: Callable[[jax.Array], jax.Array],
  action: jax.Array,
) -> jax.Array:
  """Moves actions up a gradient, within the box.

  Args:
    config: by how many steps of which size.
    gradient: actions [B, A] -> gradient of what they are to increase.
    action: [B, A] actions.

  Returns:
    Actions [B, A] in [-1, 1], held constant.
  """
  optimizer = optax.adam(config.action_learning_rate)

  def move(
    carry: tuple[jax.Array, optax.OptState], _: None
  ) -> tuple[tuple[jax.Array, optax.OptState], None]:
    action, opt_state = carry
    change, opt_state = optimizer.update(-gradient(action), opt_state)
    return (jnp.clip(action + jnp.asarray(change), -1.0, 1.0), opt_state), None

  start = (action, optimizer.init(action))
  (moved, _), _ = jax.lax.scan(move, start, length=config.num_action_moves)
  return jax.lax.stop_gradient(moved)


DIPO = Method(
  config=DIPOConfig,
  make_policy_loss=make_policy_loss,
  metrics=("denoiser_loss", "moved_distance"),
  make_update_extras=make_update_extras,
  presets={
    # The official implementation's, as far as can be: see README. It evaluates
    # without the sampler's noise.
    "official": DIPOConfig(
      policy_hidden_sizes=(256, 256, 256),
      critic_hidden_sizes=(256, 256, 256),
      num_denoising_steps=100,
      noise_schedule="cosine",
      num_action_moves=20,
      evaluate_target_denoiser=False,
      evaluation_temperature=0.0,
      exploration_noise=0.0,
      target_action_noise=0.0,
      n_step=1,
    ),
  },
)
"""DIPO."""
