"""Q-weighted variational policy optimisation (Ding et al., 2024).

arXiv:2405.16173: the best of several actions of the policy is denoised,
weighted by its advantage over them, and so are uniformly random actions, which
keep the policy from collapsing. No gradient flows through the sampler or the
critics.
"""

import jax
import jax.numpy as jnp

from acme_qsm import types
from acme_qsm.configs.qvpo import PRESETS
from acme_qsm.configs.qvpo import QVPOConfig
from acme_qsm.core import actions
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import denoising
from acme_qsm.core import sampling
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.core.training import Context
from acme_qsm.core.training import PolicyLoss
from acme_qsm.networks import DiffusionNetworks


def make_policy_loss(
  networks: DiffusionNetworks, config: QVPOConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: how many actions are drawn, and how the random ones count.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  schedule = sampling.make_schedule(networks, config)
  sampler = sampling.make_sampler(networks, config)

  def policy_loss(
    params: types.Params,
    method_state: tuple,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[tuple, types.Metrics]]:
    observation = transitions.observation
    sample_key, random_key = jax.random.split(keys[0])
    action = actions.draw_several(
      sampler,
      jax.lax.stop_gradient(params),
      sample_key,
      observation,
      config.num_policy_samples,
    )
    q_value = critics.lowest_q_value(
      networks, context.critic_params, observation, action
    )
    best, advantage = take_best(action, q_value)
    random_action = jax.random.uniform(
      random_key,
      (best.shape[0], config.num_random_actions, best.shape[1]),
      minval=-1.0,
      maxval=1.0,
    )
    share = random_action_weight(config, context.updates)
    weight = advantage[:, None] * jnp.array(
      [1.0] + [share] * config.num_random_actions
    )
    loss, _ = denoising.weighted_loss(
      networks,
      schedule,
      params,
      keys[1],
      observation,
      jnp.concatenate([best[:, None], random_action], axis=1),
      weight,
    )
    metrics = {
      "denoiser_loss": loss,
      "advantage": jnp.mean(advantage),
      "random_action_weight": share,
    }
    return loss, (method_state, metrics)

  return policy_loss


def take_best(
  action: jax.Array, q_value: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Takes the action of the highest Q, and what it has over the others.

  Args:
    action: [B, K, A] actions.
    q_value: [B, K] their Q-values.

  Returns:
    The best actions [B, A], and max_k Q less mean_k Q [B], not negative.
  """
  best = jnp.argmax(q_value, axis=1)
  highest = jnp.max(q_value, axis=1)
  return (
    action[jnp.arange(action.shape[0]), best],
    # Only the mean's rounding could make it negative.
    jnp.maximum(highest - jnp.mean(q_value, axis=1), 0.0),
  )


def random_action_weight(config: QVPOConfig, updates: jax.Array) -> jax.Array:
  """The weight [] of random actions after so many updates of the policy."""
  done = jnp.minimum(updates / config.random_action_steps, 1.0)
  start, end = config.random_action_weight, config.random_action_weight_end
  return start + done * (end - start)


def make_learner_core(
  networks: DiffusionNetworks, config: QVPOConfig
) -> LearnerCore:
  """Makes the learner: an off-policy actor-critic."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=make_policy_loss(networks, config),
    sampler=sampling.make_sampler(networks, config),
  )


QVPO = Method(
  config=QVPOConfig,
  make_learner_core=make_learner_core,
  make_policy=sampling.make_policy,
  presets=PRESETS,
)
"""Q-weighted variational policy optimisation."""
