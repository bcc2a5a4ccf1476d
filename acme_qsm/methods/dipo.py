"""Diffusion policies for online learning, DIPO (Yang et al., 2023).

arXiv:2305.13122: replay's actions are moved up the critics' action gradient,
and the denoiser learns the moved ones. No gradient flows through the sampler.

Replay keeps the moved actions, as extras, beside the executed ones, which the
critics learn from: at first they are the executed ones, and they move on from
where they are whenever they are sampled. What Reverb holds never changes:
there, each update moves the executed actions anew.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import types
from acme_qsm.core import acting
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

MOVED_ACTION = "moved_action"
"""The name of the moved actions among a transition's extras."""


@dataclasses.dataclass(frozen=True)
class DIPOConfig(DiffusionConfig):
  """Everything that DIPO can be told.

  Attributes:
    num_action_moves: N_a, steps of Adam that an action is moved by; each is one
      gradient of the critics.
    action_learning_rate: Adam's, about the size of each step in [-1, 1].
    keep_moved_actions: whether replay keeps them.
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
      moved = _moved_action(transitions)
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
  return lambda critic_params, transitions: {
    **transitions.extras,
    MOVED_ACTION: move(
      critic_params, transitions.observation, _moved_action(transitions)
    ),
  }


def _moved_action(transitions: types.Transition) -> jax.Array:
  """The moved actions [B, A] that replay holds of transitions.

  Args:
    transitions: with extras.

  Returns:
    The actions.

  Raises:
    ValueError: if the extras have no such, or of another shape.
  """
  moved = transitions.extras.get(MOVED_ACTION)
  if getattr(moved, "shape", None) != transitions.action.shape:
    raise ValueError(
      f"DIPO's extras must have {MOVED_ACTION!r} of the actions' shape "
      f"{transitions.action.shape}, got {transitions.extras}."
    )
  return moved


def make_policy(
  networks: DiffusionNetworks, config: DIPOConfig, evaluation: bool = False
) -> acting.Policy:
  """Makes the policy, whose action is the first that replay moves on."""
  sampler = sampling.make_sampler(networks, config, evaluation)
  policy = acting.make_policy(sampler, networks, config, evaluation)
  if evaluation or not config.keep_moved_actions:
    return policy

  def apply(
    params: acting.PolicyParams, key: jax.Array, observation: jax.Array
  ) -> tuple[jax.Array, types.Extras]:
    action = policy(params, key, observation)
    return action, {MOVED_ACTION: action}

  extras_spec = {MOVED_ACTION: types.ArraySpec((networks.action_size,))}
  return acting.Policy(apply, evaluation, extras_spec)


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
  make_policy=make_policy,
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
