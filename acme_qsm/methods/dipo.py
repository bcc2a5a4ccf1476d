"""Diffusion policies for online learning, DIPO (Yang et al., 2023).

arXiv:2305.13122: replay's actions are moved up the critics' action gradient,
and the denoiser learns the moved ones. No gradient flows through the sampler.

Replay keeps the moved actions, as extras, beside the executed ones, which the
critics learn from: at first they are the executed ones, and they move on from
where they are whenever they are sampled. What Reverb holds never changes:
there, each update moves the executed actions anew. Either way the critics
before the step's own update move them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from acme_qsm import types
from acme_qsm.configs.dipo import DIPOConfig
from acme_qsm.configs.dipo import PRESETS
from acme_qsm.core import acting
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import denoising
from acme_qsm.core import sampling
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.core.training import Context
from acme_qsm.core.training import PolicyLoss
from acme_qsm.networks import DiffusionNetworks

MOVED_ACTION = "moved_action"
"""The name of the moved actions among a transition's extras."""


def make_policy_loss(
  networks: DiffusionNetworks, config: DIPOConfig
) -> PolicyLoss:
  """Makes the denoiser's loss: a mean over batch and action dimensions."""
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

    if config.keep_moved_actions and types.are_given(transitions.extras):
      moved = _moved_action(transitions)
    else:
      moved = move(context.critic_params, observation, action)
    loss, _ = denoising.weighted_loss(
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
) -> Callable[[types.Params, types.Transition], types.Extras] | None:
  """Makes what moves on the actions that replay keeps; None for none."""
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


def make_learner_core(
  networks: DiffusionNetworks, config: DIPOConfig
) -> LearnerCore:
  """Makes the learner: an off-policy actor-critic."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=make_policy_loss(networks, config),
    sampler=sampling.make_sampler(networks, config),
    update_extras=make_update_extras(networks, config),
  )


DIPO = Method(
  config=DIPOConfig,
  make_learner_core=make_learner_core,
  make_policy=make_policy,
  presets=PRESETS,
)
"""DIPO."""
