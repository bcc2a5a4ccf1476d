"""The learner step of off-policy actor-critics, made of this room's pieces.

A step updates the critics, at actions that the policy draws for the next
observations; then the policy by the method's loss against the updated critics,
and with it the target networks. A method whose step is another one puts the
pieces together otherwise.
"""

from collections.abc import Callable
from typing import Any
from typing import Literal

import chex
import jax
import jax.numpy as jnp
import optax

from acme_qsm import types
from acme_qsm.configs.actor_critic import ActorCriticConfig
from acme_qsm.core import acting
from acme_qsm.core import actions
from acme_qsm.core import normalization
from acme_qsm.core import training
from acme_qsm.core import updates
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.networks import CriticNetworks

# Of a batch: 256 samples, about the cost of the critics' target.
_DIAGNOSED_OBSERVATIONS = 32
_DIAGNOSED_SAMPLES = 8


def make_learner_core(
  networks: Any,
  config: ActorCriticConfig,
  *,
  policy_loss: training.PolicyLoss,
  sampler: actions.Sampler,
  init_method_state: Callable[[], Any] = tuple,
  noise_scale: training.NoiseScale = lambda method_state: None,
  next_value_bonus: training.NextValueBonus | None = None,
  target_policy: Literal["online", "target"] = "online",
  update_critics: training.UpdateCritics | None = None,
  update_extras: Callable[[types.Params, types.Transition], types.Extras]
  | None = None,
  policy_optimizer: optax.GradientTransformation | None = None,
  critic_optimizer: optax.GradientTransformation | None = None,
) -> LearnerCore:
  """Makes the learner of an off-policy actor-critic.

  Its diagnostics are "action_spread", the root mean square deviation of the
  actions that the policy samples for one and the same observation: 0 where they
  are the same, about 1 where half of them are at either end.

  Args:
    networks: the critics, and `init_policy`: key -> the policy's parameters.
    config: the choices that all methods have.
    policy_loss: what the policy descends.
    sampler: draws an action of the policy for each observation.
    init_method_state: what the training state holds beside the shared part: a
      pytree of arrays, such as a temperature or running moments.
    noise_scale: scales the noise on actions by the method state.
    next_value_bonus: is added to the next value; None for nothing.
    target_policy: which policy draws the actions of the critics' target.
    update_critics: updates the critics in another way than
      `training.make_critic_update`, whose choices are the two before.
    update_extras: (critics' parameters, transitions with extras) -> what
      replay's extras become when they are sampled, before the step that they
      are sampled for; None where they stay as they are.
    policy_optimizer: None for Adam with the configuration's schedule. What an
      update does beside belongs to it: clipping gradients, or by
      `updates.then_project` keeping the weights somewhere.
    critic_optimizer: None for Adam.

  Returns:
    The learner's pure functions; their state is a `training.TrainingState`.

  Raises:
    ValueError: if the networks were made for another configuration.
  """
  policy_optimizer = policy_optimizer or updates.make_policy_optimizer(config)
  critic_optimizer = critic_optimizer or optax.adam(config.critic_learning_rate)
  update_critics = update_critics or training.make_critic_update(
    networks,
    config,
    sampler=sampler,
    optimizer=critic_optimizer,
    noise_scale=noise_scale,
    next_value_bonus=next_value_bonus,
    target_policy=target_policy,
  )
  update_policy = training.make_policy_update(
    config, policy_loss, policy_optimizer
  )
  period = config.policy_update_period

  def init(key: jax.Array) -> training.TrainingState:
    key, policy_key, critic_key = jax.random.split(key, 3)
    policy_params = networks.init_policy(policy_key)
    critic_params = networks.init_critics(critic_key)
    state = training.TrainingState(
      policy_params=policy_params,
      # Copies: the step may donate the buffers of both.
      target_policy_params=jax.tree.map(jnp.copy, policy_params),
      critic_params=critic_params,
      target_critic_params=jax.tree.map(jnp.copy, critic_params),
      policy_opt_state=policy_optimizer.init(policy_params),
      critic_opt_state=critic_optimizer.init(critic_params),
      method_state=init_method_state(),
      key=key,
      steps=jnp.zeros((), jnp.int32),
      policy_metrics={},
      observation_statistics=normalization.init_statistics(
        _require_observation_shape(networks, "normalize_observations")
      )
      if config.normalize_observations
      else None,
    )
    if period == 1:
      return state
    shape = _require_observation_shape(networks, "policy_update_period above 1")
    metrics = jax.eval_shape(
      update_policy, state, *_describe_batch(networks, config, shape)
    )[1]
    return state._replace(
      policy_metrics={name: jnp.zeros(()) for name in metrics}
    )

  def step(
    state: training.TrainingState, transitions: types.Transition
  ) -> tuple[training.TrainingState, types.Metrics]:
    chex.assert_rank([transitions.reward, transitions.discount], 1)
    chex.assert_shape(transitions.action, (None, networks.action_size))
    # Four at once, the last two for the policy's loss: other draws would be
    # other runs.
    keys = jax.random.split(state.key, 4)
    statistics, transitions = normalization.observe(
      state.observation_statistics, transitions
    )
    state = state._replace(observation_statistics=statistics)
    state, next_action, metrics = update_critics(state, transitions, keys[1])
    state, policy_metrics = training.update_every(
      period,
      lambda state: update_policy(state, transitions, keys[2:], next_action),
      state,
    )
    state = state._replace(key=keys[0], steps=state.steps + 1)
    return state, {**metrics, **policy_metrics}

  def policy_params(state: training.TrainingState) -> acting.PolicyParams:
    return acting.PolicyParams(
      policy=state.policy_params,
      target_policy=state.target_policy_params,
      critics=state.critic_params,
      steps=state.steps,
      observation_statistics=state.observation_statistics,
      noise_scale=noise_scale(state.method_state),
    )

  def needed_params(
    evaluation: bool,
  ) -> Callable[[training.TrainingState], acting.PolicyParams]:
    return lambda state: acting.keep_needed(
      policy_params(state), config, evaluation
    )

  def diagnostics(
    state: training.TrainingState, transitions: types.Transition
  ) -> types.Metrics:
    observation = normalization.normalize(
      state.observation_statistics,
      transitions.observation[:_DIAGNOSED_OBSERVATIONS],
    )
    action = actions.draw_several(
      sampler,
      state.policy_params,
      jax.random.fold_in(state.key, training.BESIDE),
      observation,
      _DIAGNOSED_SAMPLES,
    )
    variance = jnp.mean(jnp.var(action, axis=1, ddof=1))
    return {"action_spread": jnp.sqrt(variance)}

  def replace_extras(
    state: training.TrainingState, transitions: types.Transition
  ) -> types.Transition:
    assert update_extras is not None
    observation = normalization.normalize(
      state.observation_statistics, transitions.observation
    )
    extras = update_extras(
      state.critic_params, transitions._replace(observation=observation)
    )
    return transitions._replace(extras=extras)

  return LearnerCore(
    init=init,
    step=step,
    policy_params=policy_params,
    variables={
      "policy": policy_params,
      "acting_policy": needed_params(evaluation=False),
      "evaluation_policy": needed_params(evaluation=True),
      "critic": lambda state: state.critic_params,
    },
    diagnostics=diagnostics,
    update_extras=replace_extras if update_extras else None,
  )


def _require_observation_shape(
  networks: CriticNetworks, what: str
) -> tuple[int, ...]:
  shape = networks.observation_shape
  if shape is None:
    raise ValueError(f"{what} needs networks with an observation_shape.")
  return shape


def _describe_batch(
  networks: CriticNetworks, config: ActorCriticConfig, shape: tuple[int, ...]
) -> tuple[types.Transition, Any, Any]:
  """Shapes of transitions, the policy loss's keys and target actions."""
  batch = config.batch_size
  observation = jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
  action = jax.ShapeDtypeStruct((batch, networks.action_size), jnp.float32)
  number = jax.ShapeDtypeStruct((batch,), jnp.float32)
  transitions = types.Transition(
    observation, action, number, number, observation
  )
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))
  return transitions, keys, action
