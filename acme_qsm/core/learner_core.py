"""The training step of Q-score matching as a pure function of its state."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core.acting import add_exploration_noise
from acme_qsm.core.acting import PolicyParams
from acme_qsm.core.acting import sample_action
from acme_qsm.core.config import QSMConfig
from acme_qsm.networks import QSMNetworks


class TrainingState(NamedTuple):
  """All that training needs to go on.

  Attributes:
    denoiser_params: the denoiser's parameters.
    target_denoiser_params: their slow copy, to evaluate with.
    critic_params: the N critics' parameters.
    target_critic_params: their slow copy, which the critics' target uses.
    denoiser_opt_state: the denoiser's optimiser state.
    critic_opt_state: the critics' optimiser state.
    action_gradient_square: [] running mean square of the critics' action
      gradient, biased towards its start at 0 (as Adam's moments are).
    key: PRNG key of the next step.
    steps: [] int32 learner steps made.
  """

  denoiser_params: types.Params
  target_denoiser_params: types.Params
  critic_params: types.Params
  target_critic_params: types.Params
  denoiser_opt_state: optax.OptState
  critic_opt_state: optax.OptState
  action_gradient_square: jax.Array
  key: jax.Array
  steps: jax.Array


@dataclasses.dataclass(frozen=True)
class LearnerCore:
  """The pure functions of a learner.

  Attributes:
    init: key -> state.
    step: (state, transitions) -> (state, metrics): one gradient step of each
      network on one batch. Jit it, scan it over batches or vmap it over states.
      The state may be donated; on a CPU, such a call returns when it is done.
    policy_params: state -> the parameters that `make_policy`'s policy takes.
  """

  init: Callable[[jax.Array], TrainingState]
  step: Callable[
    [TrainingState, types.Transition], tuple[TrainingState, types.Metrics]
  ]
  policy_params: Callable[[TrainingState], PolicyParams]


def make_learner_core(networks: QSMNetworks, config: QSMConfig) -> LearnerCore:
  """Makes the training step of Q-score matching.

  A step updates the critics by clipped double Q-learning, whose target actions
  come from the reverse process, and then the denoiser by Q-score matching
  against the updated critics, at noised actions from replay (Psenka et al.,
  2024, algorithm 1 and appendix A, with the official implementation's choices).

  Args:
    networks: the denoiser and the critics.
    config: the method's choices and hyper-parameters.

  Returns:
    The learner's pure functions.
  """
  schedule = diffusion.make_schedule(
    config.noise_schedule, config.num_denoising_steps
  )
  denoiser_optimizer = optax.adam(config.policy_learning_rate)
  critic_optimizer = optax.adam(config.critic_learning_rate)

  def init(key: jax.Array) -> TrainingState:
    key, denoiser_key, critic_key = jax.random.split(key, 3)
    denoiser_params = networks.init_denoiser(denoiser_key)
    critic_params = networks.init_critics(critic_key)
    return TrainingState(
      denoiser_params=denoiser_params,
      # Copies: the step may donate the buffers of both.
      target_denoiser_params=jax.tree.map(jnp.copy, denoiser_params),
      critic_params=critic_params,
      target_critic_params=jax.tree.map(jnp.copy, critic_params),
      denoiser_opt_state=denoiser_optimizer.init(denoiser_params),
      critic_opt_state=critic_optimizer.init(critic_params),
      action_gradient_square=jnp.zeros(()),
      key=key,
      steps=jnp.zeros((), jnp.int32),
    )

  def move_target(params: types.Params, target: types.Params) -> types.Params:
    return optax.incremental_update(params, target, config.target_update_rate)

  def policy_params(state: TrainingState) -> PolicyParams:
    return PolicyParams(
      denoiser=state.denoiser_params,
      target_denoiser=state.target_denoiser_params,
      critics=state.critic_params,
      steps=state.steps,
    )

  def target_q_values(
    state: TrainingState, key: jax.Array, observation: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Target critics' values [N, B] of freshly sampled actions [B, A]."""
    sample_key, noise_key = jax.random.split(key)
    action = sample_action(
      networks,
      schedule,
      state.denoiser_params,
      state.target_critic_params,
      sample_key,
      observation,
      num_candidates=config.num_target_candidates,
      temperature=config.sampling_temperature,
    )
    action = add_exploration_noise(
      noise_key, action, config.target_action_noise
    )
    return (
      networks.criticize(state.target_critic_params, observation, action),
      action,
    )

  def critic_loss(
    critic_params: types.Params,
    transitions: types.Transition,
    next_q_values: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    q_values = networks.criticize(
      critic_params, transitions.observation, transitions.action
    )
    loss = losses.clipped_double_q_loss(
      q_values,
      config.reward_scale * transitions.reward,
      config.discount * transitions.discount,
      next_q_values,
    )
    return jnp.mean(loss), q_values

  def action_gradient(
    critic_params: types.Params, observation: jax.Array, action: jax.Array
  ) -> jax.Array:
    """Gradient [B, A] of the critics' mean, which is the gradients' mean."""

    def total_q_value(action: jax.Array) -> jax.Array:
      q_values = networks.criticize(critic_params, observation, action)
      return jnp.sum(jnp.mean(q_values, axis=0))

    return jax.grad(total_q_value)(action)

  def denoiser_loss(
    denoiser_params: types.Params,
    observation: jax.Array,
    noisy_action: jax.Array,
    step: jax.Array,
    scaled_gradient: jax.Array,
  ) -> jax.Array:
    noise_prediction = networks.denoise(
      denoiser_params, observation, noisy_action, step
    )
    if config.score_target == "action_gradient":
      loss = losses.q_score_matching_loss(
        noise_prediction, scaled_gradient, scale=1.0
      )
    else:
      loss = losses.boltzmann_score_matching_loss(
        noise_prediction,
        scaled_gradient,
        noisy_action,
        schedule.alpha_bars[step],
        scale=1.0,
      )
    return jnp.mean(loss)

  def step(
    state: TrainingState, transitions: types.Transition
  ) -> tuple[TrainingState, types.Metrics]:
    observation, action = transitions.observation, transitions.action
    chex.assert_rank([transitions.reward, transitions.discount], 1)
    chex.assert_shape(action, (None, networks.action_size))
    batch_size = action.shape[0]
    key, target_key, step_key, noise_key = jax.random.split(state.key, 4)

    # The critics.
    next_q_values, next_action = target_q_values(
      state, target_key, transitions.next_observation
    )
    (critic_loss_value, q_values), critic_grads = jax.value_and_grad(
      critic_loss, has_aux=True
    )(state.critic_params, transitions, next_q_values)
    updates, critic_opt_state = critic_optimizer.update(
      critic_grads, state.critic_opt_state
    )
    critic_params = optax.apply_updates(state.critic_params, updates)

    # The denoiser.
    steps = jax.random.randint(
      step_key, (batch_size,), 0, config.num_denoising_steps
    )
    noisy_action = diffusion.add_noise(
      schedule, action, jax.random.normal(noise_key, action.shape), steps
    )
    gradient = action_gradient(critic_params, observation, noisy_action)
    decay = config.action_gradient_decay
    action_gradient_square = decay * state.action_gradient_square + (
      1.0 - decay
    ) * jnp.mean(jnp.square(gradient))
    # The running mean starts at 0: divide what is missing out.
    gradient_size = jnp.sqrt(
      action_gradient_square / (1.0 - decay ** (state.steps + 1))
    )
    scale = jnp.float32(config.q_score_scale)
    if config.normalize_action_gradient:
      # A critic that is flat everywhere says nothing: leave it at that.
      scale /= jnp.maximum(gradient_size, 1e-8)
    scaled_gradient = scale * gradient
    if config.action_gradient_clip is not None:
      scaled_gradient = jnp.clip(
        scaled_gradient,
        -config.action_gradient_clip,
        config.action_gradient_clip,
      )
    denoiser_loss_value, denoiser_grads = jax.value_and_grad(denoiser_loss)(
      state.denoiser_params, observation, noisy_action, steps, scaled_gradient
    )
    updates, denoiser_opt_state = denoiser_optimizer.update(
      denoiser_grads, state.denoiser_opt_state
    )
    denoiser_params = optax.apply_updates(state.denoiser_params, updates)

    new_state = TrainingState(
      denoiser_params=denoiser_params,
      target_denoiser_params=move_target(
        denoiser_params, state.target_denoiser_params
      ),
      critic_params=critic_params,
      target_critic_params=move_target(
        critic_params, state.target_critic_params
      ),
      denoiser_opt_state=denoiser_opt_state,
      critic_opt_state=critic_opt_state,
      action_gradient_square=action_gradient_square,
      key=key,
      steps=state.steps + 1,
    )
    metrics = {
      "critic_loss": critic_loss_value,
      "denoiser_loss": denoiser_loss_value,
      "q_value": jnp.mean(q_values),
      "action_gradient_size": gradient_size,
      "saturated_actions": jnp.mean(jnp.abs(next_action) >= 1.0),
    }
    return new_state, metrics

  return LearnerCore(
    init=init,
    step=step,
    policy_params=policy_params,
  )
