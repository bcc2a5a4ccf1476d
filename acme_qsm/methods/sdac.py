"""Soft diffusion actor-critic (Ma et al., 2025, arXiv:2502.00361).

Reverse sampling score matching: for a noisy action, clean actions that it may
have come from are drawn, and the denoiser learns their noises, weighted by
exp(Q / temperature) of the clean actions. No gradient flows through the sampler
or the critics.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any
from typing import Literal

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import critics
from acme_qsm.core import sampling
from acme_qsm.core import weights
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp

if typing.TYPE_CHECKING:
  from acme_qsm.networks import DiffusionNetworks

NoisyActionSource = Literal["policy", "replay", "uniform", "gaussian"]
ReverseSampling = Literal["truncated", "clipped", "unbounded"]

# What the paper says, or leaves to its implementation. It counts environment
# steps of five environments, and updates once in five of them.
_REFERENCE_LEARNING: dict[str, Any] = {
  "policy_learning_rate_schedule": "linear",
  "policy_learning_rate_end": 3e-5,
  "policy_learning_rate_begin": 25_000,
  "policy_learning_rate_steps": 50_000,
  "n_step": 1,
  "min_replay_size": 30_000,
  "updates_per_step": 0.2,
  "boltzmann_temperature": 5.0,
  "temperature_update": "reference_decay",
  "temperature_learning_rate": 7e-3,
  "temperature_scales_noise": True,
}


@dataclasses.dataclass(frozen=True)
class SDACConfig(weights.WeightsConfig):
  """Everything that soft diffusion actor-critic can be told.

  Attributes:
    noisy_action_source: where the noisy actions a_t come from at which the
      denoiser is trained; any has the same optimum. "replay": replay's actions,
      noised. "policy": fresh actions of the policy, chosen and noised as those
      of the critics' target, then noised to a_t. "uniform" and "gaussian":
      drawn alike at each noise level.
    noisy_action_scale: the bound of uniform noisy actions, the standard
      deviation of Gaussian ones.
    num_reverse_samples: K, clean actions drawn for each noisy action. Each is
      one evaluation of the critics.
    reverse_sampling: how they are kept in the box [-1, 1]. "truncated": their
      noises are drawn from the normal truncated to it. "clipped": the critics
      are asked at the clipped action, which biases the weights. "unbounded":
      not at all.
  """

  sampler: diffusion.TransitionName = "posterior"
  policy_update_period: int = configuration.positive(2)
  noisy_action_source: NoisyActionSource = "replay"
  noisy_action_scale: float = configuration.positive(1.0)
  num_reverse_samples: int = configuration.positive(16)
  reverse_sampling: ReverseSampling = "truncated"

  def __post_init__(self):
    super().__post_init__()
    self.check_num_samples("num_reverse_samples")


def make_policy_loss(
  networks: DiffusionNetworks, config: SDACConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: the noisy actions, the reverse samples and their weights.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  schedule = sampling.make_schedule(networks, config)
  sampler = sampling.make_sampler(networks, config)

  def policy_loss(
    params: types.Params,
    extra: weights.Temperature,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[weights.Temperature, types.Metrics]]:
    frozen_params = jax.tree.map(jax.lax.stop_gradient, params)
    observation = transitions.observation
    step_key, source_key = jax.random.split(keys[0])
    steps = jax.random.randint(
      step_key, observation.shape[:1], 0, schedule.num_steps
    )

    def draw_policy_action(key: jax.Array) -> jax.Array:
      action, _ = critics.draw_target_action(
        sampler,
        networks,
        config,
        frozen_params,
        context.critic_params,
        key,
        observation,
        weights.noise_scale(config, extra),
      )
      return action

    noisy_action = draw_noisy_action(
      config,
      schedule,
      source_key,
      transitions.action,
      steps,
      draw_policy_action,
    )
    clean_action, noise = diffusion.reverse_samples(
      keys[1],
      schedule,
      noisy_action,
      steps,
      config.num_reverse_samples,
      bound=1.0 if config.reverse_sampling == "truncated" else None,
    )
    if config.reverse_sampling == "clipped":
      clean_action = jnp.clip(clean_action, -1.0, 1.0)
    q_value = acting.lowest_q_value(
      networks, context.critic_params, observation, clean_action
    )
    weight = weights.weigh(config, q_value, extra.value)
    share = weights.shares(config, q_value, extra.value)
    noise_prediction = networks.denoise(
      params, observation, noisy_action, steps
    )
    loss = jnp.mean(
      losses.reverse_sampling_score_matching_loss(
        noise_prediction, noise, weight
      )
    )
    metrics = {
      "denoiser_loss": loss,
      **weights.measure(extra, weight, share, steps, schedule.num_steps),
    }
    extra = weights.update_temperature(config, extra, share, context.updates)
    return loss, (extra, metrics)

  return policy_loss


def draw_noisy_action(
  config: SDACConfig,
  schedule: diffusion.NoiseSchedule,
  key: jax.Array,
  action: jax.Array,
  steps: jax.Array,
  draw_policy_action: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Draws the actions at which the denoiser is trained.

  Args:
    config: from where.
    schedule: the noise schedule.
    key: a PRNG key, consumed.
    action: [B, A] replay's actions.
    steps: [B] denoising steps.
    draw_policy_action: key -> [B, A] the policy's actions; called where they
      are wanted.

  Returns:
    a_t [B, A].
  """
  noise_key, policy_key = jax.random.split(key)
  scale = config.noisy_action_scale
  if config.noisy_action_source == "uniform":
    return jax.random.uniform(
      noise_key, action.shape, minval=-scale, maxval=scale
    )
  noise = jax.random.normal(noise_key, action.shape)
  if config.noisy_action_source == "gaussian":
    return scale * noise
  if config.noisy_action_source == "policy":
    action = draw_policy_action(policy_key)
  return diffusion.add_noise(schedule, action, noise, steps)


SDAC = Method(
  config=SDACConfig,
  make_policy_loss=make_policy_loss,
  metrics=("denoiser_loss", *weights.METRICS),
  init_extra=weights.init_temperature,
  noise_scale=weights.noise_scale,
  presets={
    "paper": SDACConfig(
      policy_hidden_sizes=(256, 256, 256),
      critic_hidden_sizes=(256, 256, 256),
      num_denoising_steps=20,
      noise_schedule="cosine",
      noisy_action_source="policy",
      num_reverse_samples=1,
      reverse_sampling="clipped",
      weights="normalized_exponential",
      policy_update_period=1,
      temperature_update_period=250,
      **_REFERENCE_LEARNING,
    ),
    "reference": SDACConfig(
      policy_hidden_sizes=(256, 256, 256),
      critic_hidden_sizes=(256, 256, 256),
      num_denoising_steps=20,
      noise_schedule="linear",
      beta_start=0.8 * 1e-4,
      beta_end=0.8 * 0.999,
      sampling_start_scale=0.5,
      noisy_action_source="policy",
      num_reverse_samples=64,
      reverse_sampling="clipped",
      weights="self_normalized",
      reward_scale=0.2,
      policy_update_period=2,
      temperature_update_period=125,
      act_with_target_denoiser=True,
      num_action_candidates=32,
      num_target_candidates=32,
      num_evaluation_candidates=32,
      **_REFERENCE_LEARNING,
    ),
  },
)
"""Soft diffusion actor-critic."""
