"""The training step of every method as a pure function of its state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import critics
from acme_qsm.core import normalization
from acme_qsm.core import updates
from acme_qsm.core.config import ActorCriticConfig
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.deferred import chex
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp
from acme_qsm.deferred import optax

# Of a batch: 256 samples, about the cost of the critics' target.
_DIAGNOSED_OBSERVATIONS = 32
_DIAGNOSED_SAMPLES = 8
# Folded into a key, it makes a draw of its own: a small number's key may be one
# of those that the same key is split into.
_BESIDE = 2**31 - 1


class TrainingState(NamedTuple):
  """All that training needs to go on.

  Attributes:
    policy_params: the policy's parameters.
    target_policy_params: the target policy's, to evaluate with.
    critic_params: the N critics' parameters.
    target_critic_params: the target critics', which the critics' target uses.
    policy_opt_state: the policy's optimiser state.
    critic_opt_state: the critics' optimiser state.
    method_state: what the method adds, such as a temperature.
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


@dataclasses.dataclass(frozen=True)
class LearnerCore:
  """The pure functions of a learner.

  Attributes:
    init: key -> state.
    step: (state, transitions) -> (state, metrics): one gradient step of each
      network on one batch. Jit it, scan it over batches or vmap it over
      states.
      The state may be donated; on a CPU, such a call returns when it is done.
    policy_params: state -> the parameters that `make_policy`'s policy takes.
    diagnostics: (state, transitions) -> metrics that cost more than a step
      should: "action_spread", the root mean square deviation of the actions
      that the policy samples for one and the same observation: 0 where they
      are the same, about 1 where half of them are at either end.
      The state stays as it is. Call it now and then.
    update_extras: (state, transitions) -> the same transitions, whose extras
      are what replay is to hold from then on; call it before `step`, for
      transitions that have extras. None where the method has none.
    variables: by name, what a learner answers to who asks, from its state:
      "policy" (as policy_params), "acting_policy" and "evaluation_policy" (the
      same without what that policy does not read), and "critic" (the online
      critics' parameters).
  """

  init: Callable[[jax.Array], TrainingState]
  step: Callable[
    [TrainingState, types.Transition], tuple[TrainingState, types.Metrics]
  ]
  policy_params: Callable[[TrainingState], acting.PolicyParams]
  diagnostics: Callable[[TrainingState, types.Transition], types.Metrics]
  variables: Mapping[str, Callable[[TrainingState], Any]]
  update_extras: (
    Callable[[TrainingState, types.Transition], types.Transition] | None
  ) = None

  def step_with_extras(
    self, state: TrainingState, transitions: types.Transition
  ) -> tuple[TrainingState, tuple[types.Metrics, Any]]:
    """`step`, after `update_extras` where transitions have extras.

    Args:
      state: the state before.
      transitions: the batch.

    Returns:
      The next state; the metrics, and the extras by name [B, ...] that replay
      is to hold from now on, () if they stay as they are.
    """
    extras = ()
    if self.update_extras is not None and types.are_given(transitions.extras):
      transitions = self.update_extras(state, transitions)
      extras = transitions.extras
    state, metrics = self.step(state, transitions)
    return state, (metrics, extras)


def make_learner_core(
  method: Method, networks: acting.Networks, config: ActorCriticConfig
) -> LearnerCore:
  """Makes a method's training step.

  A step updates the critics, whose target's actions the policy draws; then the
  policy by the method's loss against the updated critics; then the targets.

  Args:
    method: what is learnt by.
    networks: the policy and the critics.
    config: the method's choices and hyper-parameters.

  Returns:
    The learner's pure functions.

  Raises:
    ValueError: if the networks were made for another configuration.
  """
  parts = _Parts(method, networks, config)

  def needed_params(
    evaluation: bool,
  ) -> Callable[[TrainingState], acting.PolicyParams]:
    return lambda state: acting.keep_needed(
      parts.policy_params(state), config, evaluation
    )

  return LearnerCore(
    init=parts.init,
    step=parts.step,
    policy_params=parts.policy_params,
    diagnostics=parts.diagnostics,
    variables={
      "policy": parts.policy_params,
      "acting_policy": needed_params(evaluation=False),
      "evaluation_policy": needed_params(evaluation=True),
      "critic": lambda state: state.critic_params,
    },
    update_extras=_make_update_extras(method, networks, config),
  )


def _make_update_extras(
  method: Method, networks: acting.Networks, config: ActorCriticConfig
) -> Callable[[TrainingState, types.Transition], types.Transition] | None:
  update = method.make_update_extras(networks, config)
  if update is None:
    return None

  def update_extras(
    state: TrainingState, transitions: types.Transition
  ) -> types.Transition:
    observation = normalization.normalize(
      state.observation_statistics, transitions.observation
    )
    extras = update(
      state.critic_params, transitions._replace(observation=observation)
    )
    return transitions._replace(extras=extras)

  return update_extras


def _normalize(
  state: TrainingState, transitions: types.Transition
) -> tuple[TrainingState, types.Transition]:
  """Normalises observations, whose statistics count these too."""
  if state.observation_statistics is None:
    return state, transitions
  statistics = normalization.update_statistics(
    state.observation_statistics, transitions.observation
  )
  transitions = transitions._replace(
    observation=normalization.normalize(statistics, transitions.observation),
    next_observation=normalization.normalize(
      statistics, transitions.next_observation
    ),
  )
  return state._replace(observation_statistics=statistics), transitions


def _require_scalars(name: str, metrics: types.Metrics) -> types.Metrics:
  """Metrics in single precision: they are held, averaged and may be NaN.

  Args:
    name: what reports them.
    metrics: numbers by name.

  Returns:
    The same as float32 [].

  Raises:
    ValueError: if one is no scalar.
  """
  for metric, value in metrics.items():
    if jnp.shape(value) != ():
      raise ValueError(
        f"The {name} reports {metric!r} of shape {jnp.shape(value)}; a metric "
        "must be a scalar."
      )
  return {
    metric: jnp.asarray(value, jnp.float32) for metric, value in metrics.items()
  }


class _Parts:
  """What the steps of a learner are made of; nothing here changes."""

  def __init__(
    self, method: Method, networks: acting.Networks, config: ActorCriticConfig
  ):
    self._method = method
    self._networks = networks
    self._config = config
    self._sampler = method.make_sampler(networks, config)
    self._policy_loss = method.make_policy_loss(networks, config)
    self._critic_loss = method.make_critic_loss(networks, config)
    self._next_value_bonus = method.make_next_value_bonus(networks, config)
    self._policy_optimizer = updates.make_policy_optimizer(config)
    self._critic_optimizer = optax.adam(config.critic_learning_rate)

  def init(self, key: jax.Array) -> TrainingState:
    """The state before the first step."""
    key, policy_key, critic_key = jax.random.split(key, 3)
    policy_params = self._networks.init_policy(policy_key)
    critic_params = self._networks.init_critics(critic_key)
    held = self._method.metrics if self._config.policy_update_period > 1 else ()
    return TrainingState(
      policy_params=policy_params,
      # Copies: the step may donate the buffers of both.
      target_policy_params=jax.tree.map(jnp.copy, policy_params),
      critic_params=critic_params,
      target_critic_params=jax.tree.map(jnp.copy, critic_params),
      policy_opt_state=self._policy_optimizer.init(policy_params),
      critic_opt_state=self._critic_optimizer.init(critic_params),
      method_state=self._method.init_method_state(self._config),
      key=key,
      steps=jnp.zeros((), jnp.int32),
      policy_metrics={name: jnp.zeros(()) for name in held},
      observation_statistics=self._init_statistics(),
    )

  def policy_params(self, state: TrainingState) -> acting.PolicyParams:
    """The parameters to act with: see `LearnerCore`."""
    return acting.PolicyParams(
      policy=state.policy_params,
      target_policy=state.target_policy_params,
      critics=state.critic_params,
      steps=state.steps,
      observation_statistics=state.observation_statistics,
      noise_scale=self._method.noise_scale(self._config, state.method_state),
    )

  def diagnostics(
    self, state: TrainingState, transitions: types.Transition
  ) -> types.Metrics:
    """Metrics that cost more than a step should: see `LearnerCore`."""
    key = jax.random.fold_in(state.key, _BESIDE)
    observation = normalization.normalize(
      state.observation_statistics,
      transitions.observation[:_DIAGNOSED_OBSERVATIONS],
    )
    repeated = jnp.repeat(observation, _DIAGNOSED_SAMPLES, axis=0)
    action = self._sampler(state.policy_params, key, repeated)
    action = action.reshape(-1, _DIAGNOSED_SAMPLES, self._networks.action_size)
    variance = jnp.mean(jnp.var(action, axis=1, ddof=1))
    return {"action_spread": jnp.sqrt(variance)}

  def _init_statistics(self) -> normalization.Statistics | None:
    if not self._config.normalize_observations:
      return None
    shape = self._networks.observation_shape
    if shape is None:
      raise ValueError(
        "normalize_observations needs networks with an observation_shape."
      )
    return normalization.init_statistics(shape)

  def step(
    self, state: TrainingState, transitions: types.Transition
  ) -> tuple[TrainingState, types.Metrics]:
    """One learner step: see `LearnerCore`."""
    chex.assert_rank([transitions.reward, transitions.discount], 1)
    chex.assert_shape(transitions.action, (None, self._networks.action_size))
    # Four at once, the last two for the policy's loss: other draws would be
    # other runs.
    keys = jax.random.split(state.key, 4)
    state, transitions = _normalize(state, transitions)
    state, next_action, metrics = self._update_critics(
      state, transitions, keys[1]
    )
    state, policy_metrics = self._update_policy_if_due(
      state, transitions, keys[2:], next_action
    )
    state = state._replace(key=keys[0], steps=state.steps + 1)
    return state, {**metrics, **policy_metrics}

  def _update_critics(
    self, state: TrainingState, transitions: types.Transition, key: jax.Array
  ) -> tuple[TrainingState, jax.Array, types.Metrics]:
    """Returns the next state, the target's actions [B, A] and metrics."""
    next_action, noiseless_action = critics.draw_target_action(
      self._sampler,
      self._networks,
      self._config,
      state.policy_params,
      state.target_critic_params,
      key,
      transitions.next_observation,
      self._method.noise_scale(self._config, state.method_state),
    )
    update = updates.gradient_step(
      self._critic_loss,
      self._critic_optimizer,
      state.critic_params,
      state.critic_opt_state,
      state.target_critic_params,
      self._add_bonus(state, transitions, key),
      next_action,
    )
    metrics = {
      "critic_loss": update.loss,
      **_require_scalars("critic loss", update.aux),
      # Noise takes many beyond the ends that the policy itself does not.
      "saturated_actions": jnp.mean(jnp.abs(noiseless_action) >= 1.0),
    }
    state = state._replace(
      critic_params=update.params, critic_opt_state=update.opt_state
    )
    return state, next_action, metrics

  def _add_bonus(
    self, state: TrainingState, transitions: types.Transition, key: jax.Array
  ) -> types.Transition:
    """Transitions whose rewards have the method's bonus on the next value."""
    if self._next_value_bonus is None:
      return transitions
    bonus = self._next_value_bonus(
      state.policy_params,
      state.method_state,
      jax.random.fold_in(key, _BESIDE),
      transitions.next_observation,
    )
    # r + discount (Q + bonus), whatever it is that the critics predict.
    scale = self._config.discount / self._config.reward_scale
    return transitions._replace(
      reward=transitions.reward + scale * transitions.discount * bonus
    )

  def _update_policy_if_due(
    self,
    state: TrainingState,
    transitions: types.Transition,
    keys: jax.Array,
    next_action: jax.Array,
  ) -> tuple[TrainingState, types.Metrics]:
    """Updates at every `policy_update_period`-th step, from the first on."""
    period = self._config.policy_update_period
    if period == 1:
      return self._update_policy(state, transitions, keys, next_action)

    def update(state: TrainingState) -> TrainingState:
      state, metrics = self._update_policy(
        state, transitions, keys, next_action
      )
      return state._replace(policy_metrics=metrics)

    state = jax.lax.cond(
      state.steps % period == 0, update, lambda same: same, state
    )
    return state, state.policy_metrics

  def _update_policy(
    self,
    state: TrainingState,
    transitions: types.Transition,
    keys: jax.Array,
    next_action: jax.Array,
  ) -> tuple[TrainingState, types.Metrics]:
    """Updates the policy, and moves the targets."""
    context = Context(
      critic_params=state.critic_params,
      target_critic_params=state.target_critic_params,
      target_policy_params=state.target_policy_params,
      next_action=next_action,
      updates=state.steps // self._config.policy_update_period,
    )
    update = updates.gradient_step(
      self._policy_loss,
      self._policy_optimizer,
      state.policy_params,
      state.policy_opt_state,
      state.method_state,
      transitions,
      keys,
      context,
    )
    method_state, metrics = update.aux
    metrics = _require_scalars("policy loss", metrics)
    if set(metrics) != set(self._method.metrics):
      raise ValueError(
        f"The policy loss reports {sorted(metrics)}, but the method's metrics "
        f"are {sorted(self._method.metrics)}."
      )
    rate = self._config.target_update_rate
    state = state._replace(
      policy_params=update.params,
      target_policy_params=updates.move_target(
        update.params, state.target_policy_params, rate
      ),
      target_critic_params=updates.move_target(
        state.critic_params, state.target_critic_params, rate
      ),
      policy_opt_state=update.opt_state,
      method_state=method_state,
    )
    return state, metrics
