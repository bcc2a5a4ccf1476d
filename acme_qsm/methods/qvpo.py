"""Q-weighted variational policy optimisation (Ding et al., 2024).

arXiv:2405.16173: the best of several actions of the policy is denoised,
weighted by its advantage over them, and so are uniformly random actions, which
keep the policy from collapsing. No gradient flows through the sampler or the
critics.
"""

from __future__ import annotations

import dataclasses
import typing

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import policy_samples
from acme_qsm.core import sampling
from acme_qsm.core.config import DiffusionConfig
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp

if typing.TYPE_CHECKING:
  from acme_qsm.networks import DiffusionNetworks


@dataclasses.dataclass(frozen=True)
class QVPOConfig(DiffusionConfig):
  """Everything that Q-weighted variational policy optimisation can be told.

  Attributes:
    num_policy_samples: K, actions of the policy for each observation, of which
      the best is denoised; at least 2.
    num_random_actions: uniformly random actions for each observation that are
      denoised as well; 0 for none.
    random_action_weight: their weight, as a share of the best action's, before
      the first update.
    random_action_weight_end: the same after `random_action_steps`.
    random_action_steps: updates of the policy over which it changes, linearly.
  """

  sampler: diffusion.TransitionName = "posterior"
  num_policy_samples: int = configuration.checked(
    4, lambda value: value >= 2, "at least 2"
  )
  num_random_actions: int = configuration.non_negative(2)
  random_action_weight: float = configuration.non_negative(0.1)
  random_action_weight_end: float = configuration.non_negative(0.01)
  random_action_steps: int = configuration.positive(100_000)


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
    action = policy_samples.draw(
      sampler, params, sample_key, observation, config.num_policy_samples
    )
    q_value = acting.lowest_q_value(
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
    loss, _ = policy_samples.denoising_loss(
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
    # Rounding of the mean apart, it is not negative.
    jnp.maximum(highest - jnp.mean(q_value, axis=1), 0.0),
  )


def random_action_weight(config: QVPOConfig, updates: jax.Array) -> jax.Array:
  """The weight [] of random actions after so many updates of the policy."""
  done = jnp.minimum(updates / config.random_action_steps, 1.0)
  start, end = config.random_action_weight, config.random_action_weight_end
  return start + done * (end - start)


QVPO = Method(
  config=QVPOConfig,
  make_policy_loss=make_policy_loss,
  metrics=("denoiser_loss", "advantage", "random_action_weight"),
  presets={
    # The official implementation's, as far as can be: see README.
    "official": QVPOConfig(
      policy_learning_rate=1e-4,
      num_denoising_steps=20,
      noise_schedule="cosine",
      num_policy_samples=64,
      num_random_actions=10,
      random_action_weight=0.02,
      random_action_weight_end=0.002,
      random_action_steps=1_000_000,
      num_action_candidates=4,
      num_target_candidates=4,
      num_evaluation_candidates=32,
      evaluate_target_denoiser=False,
      exploration_noise=0.0,
      target_action_noise=0.0,
      n_step=1,
    ),
  },
)
"""Q-weighted variational policy optimisation."""
