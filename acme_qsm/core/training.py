"""The state of off-policy actor-critics, and the updates of its two halves."""

from collections.abc import Callable
from typing import Any
from typing import Literal
from typing import NamedTuple
from typing import TypeAlias

import jax
import jax.numpy as jnp
import optax

from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.core import actions
from acme_qsm.core import critics
from acme_qsm.core import normalization
from acme_qsm.core import updates
from acme_qsm.networks import CriticNetworks

# What is folded into a key for one more draw. A small number folded in may give
# one of the keys that the same key is split into.
BESIDE = 2**31 - 1


class TrainingState(NamedTuple):
  """All that training needs to go on.

  Attributes:
    policy_params: the policy's parameters.
    target_policy_params: the target policy's, to evaluate with.
    critic_params: the N critics' parameters.
    target_critic_params: the target critics', which the critics' target uses.
    policy_opt_state: the policy's optimiser state.
    critic_opt_state: the critics' optimiser state.
    method_state: what the method holds beside, such as a temperature.
    key: PRNG key of the next step.
    steps: [] int32 learner steps made.
    policy_metrics: the metrics of the policy's last update, where it is not
      updated at each step; else empty.
    observation_statistics: of the observations in all batches, where they are
      normalised; else None.
  """

  policy_params: types.Params
  target_policy_params: types.Params
  critic_params: types.Params
  target_critic_params: types.Params
  policy_opt_state: optax.OptState
  critic_opt_state: optax.OptState
  method_state: Any
  key: jax.Array
  steps: jax.Array
  policy_metrics: types.Metrics
  observation_statistics: normalization.Statistics | None


class Context(NamedTuple):
  """What a policy loss may look at, and not change.

  Attributes:
    critic_params: the critics' parameters, after their update.
    target_critic_params: the target critics' parameters.
    target_policy_params: the target policy's parameters.
    next_action: [B, A] the policy's actions at the next observations, which the
      critics' target was made of.
    updates: [] int32 updates of the policy made before.
  """

  critic_params: types.Params
  target_critic_params: types.Params
  target_policy_params: types.Params
  next_action: jax.Array
  updates: jax.Array


PolicyLoss: TypeAlias = Callable[
  [types.Params, Any, types.Transition, jax.Array, Context],
  tuple[jax.Array, tuple[Any, types.Metrics]],
]
"""(policy's parameters, method state, transitions, two PRNG keys [2], context)
-> (loss [], (new method state, metrics)). The gradient is that of the first
argument; both keys are consumed. Metrics are scalars, whole numbers too. Where
the policy is not updated at each step, the loss is traced once with transitions
without extras, for its metrics' names."""

NoiseScale: TypeAlias = Callable[[Any], "jax.Array | None"]
"""Method state -> factor [] of the noise on actions while collecting data and
in the critics' target; None for none."""

NextValueBonus: TypeAlias = Callable[
  [types.Params, Any, jax.Array, jax.Array], jax.Array
]
"""(policy's parameters, method state, key, next observation [B, ...]) -> what
is added to the value of the next action in the critics' target, such as its
entropy: [B], in units of scaled reward."""

UpdateCritics: TypeAlias = Callable[
  [TrainingState, types.Transition, jax.Array],
  tuple[TrainingState, jax.Array, types.Metrics],
]
"""(state, transitions, key) -> (state with updated critics, the actions [B, A]
that their target was made of, metrics). The key is consumed. What such critics
hold beside parameters, batch statistics or moments of their targets, is in the
method state."""


def make_critic_update(
  networks: CriticNetworks,
  config: ActorCriticConfig,
  *,
  sampler: actions.Sampler,
  optimizer: optax.GradientTransformation,
  critic_loss: critics.CriticLoss | None = None,
  noise_scale: NoiseScale = lambda method_state: None,
  next_value_bonus: NextValueBonus | None = None,
  target_policy: Literal["online", "target"] = "online",
) -> UpdateCritics:
  """Makes the update of critics that hold nothing beside their parameters.

  Args:
    networks: the critics.
    config: their head, the discount, candidates and noise of target actions.
    sampler: draws an action of the policy for each observation.
    optimizer: the critics'.
    critic_loss: what they descend; None for `critics.make_critic_loss`.
    noise_scale: scales the target actions' noise by the method state.
    next_value_bonus: is added to the next value; None for nothing.
    target_policy: which policy draws the target actions.

  Returns:
    The update. Its metrics are "critic_loss", the loss's own, and
    "saturated_actions", the share of the policy's actions at an end.

  Raises:
    ValueError: if the networks were made for another configuration.
  """
  critic_loss = critic_loss or critics.make_critic_loss(networks, config)

  def update(
    state: TrainingState, transitions: types.Transition, key: jax.Array
  ) -> tuple[TrainingState, jax.Array, types.Metrics]:
    next_action, noiseless_action = actions.draw_target_action(
      sampler,
      networks,
      config,
      state.policy_params
      if target_policy == "online"
      else state.target_policy_params,
      state.target_critic_params,
      key,
      transitions.next_observation,
      noise_scale(state.method_state),
    )
    if next_value_bonus is not None:
      bonus = next_value_bonus(
        state.policy_params,
        state.method_state,
        jax.random.fold_in(key, BESIDE),
        transitions.next_observation,
      )
      transitions = critics.add_next_value(config, transitions, bonus)
    done = updates.gradient_step(
      critic_loss,
      optimizer,
      state.critic_params,
      state.critic_opt_state,
      state.target_critic_params,
      transitions,
      next_action,
    )
    metrics = {
      "critic_loss": done.loss,
      **updates.require_scalars("critic loss", done.aux),
      # Noise takes many beyond the ends that the policy itself does not.
      "saturated_actions": jnp.mean(jnp.abs(noiseless_action) >= 1.0),
    }
    state = state._replace(
      critic_params=done.params, critic_opt_state=done.opt_state
    )
    return state, next_action, metrics

  return update


def make_policy_update(
  config: ActorCriticConfig,
  policy_loss: PolicyLoss,
  optimizer: optax.GradientTransformation,
) -> Callable[..., tuple[TrainingState, types.Metrics]]:
  """Makes the update of the policy, which moves the target networks too.

  Args:
    config: how often it is made, and how far targets move.
    policy_loss: what the policy descends.
    optimizer: the policy's.

  Returns:
    (state, transitions, two PRNG keys [2], next action [B, A]) -> (state,
    metrics).
  """

  def update(
    state: TrainingState,
    transitions: types.Transition,
    keys: jax.Array,
    next_action: jax.Array,
  ) -> tuple[TrainingState, types.Metrics]:
    context = Context(
      critic_params=state.critic_params,
      target_critic_params=state.target_critic_params,
      target_policy_params=state.target_policy_params,
      next_action=next_action,
      updates=state.steps // config.policy_update_period,
    )
    done = updates.gradient_step(
      policy_loss,
      optimizer,
      state.policy_params,
      state.policy_opt_state,
      state.method_state,
      transitions,
      keys,
      context,
    )
    method_state, metrics = done.aux
    rate = config.target_update_rate
    state = state._replace(
      policy_params=done.params,
      target_policy_params=updates.move_target(
        done.params, state.target_policy_params, rate
      ),
      target_critic_params=updates.move_target(
        state.critic_params, state.target_critic_params, rate
      ),
      policy_opt_state=done.opt_state,
      method_state=method_state,
    )
    return state, updates.require_scalars("policy loss", metrics)

  return update


def update_every(
  period: int,
  update: Callable[[TrainingState], tuple[TrainingState, types.Metrics]],
  state: TrainingState,
) -> tuple[TrainingState, types.Metrics]:
  """Updates at every period-th step, from the first on.

  Args:
    period: learner steps per update.
    update: state -> (state, metrics).
    state: the state.

  Returns:
    The next state, and the metrics of the last update, which the state holds
    where the period is not 1.
  """
  if period == 1:
    return update(state)

  def update_and_hold(state: TrainingState) -> TrainingState:
    state, metrics = update(state)
    return state._replace(policy_metrics=metrics)

  state = jax.lax.cond(
    state.steps % period == 0, update_and_hold, lambda same: same, state
  )
  return state, state.policy_metrics
