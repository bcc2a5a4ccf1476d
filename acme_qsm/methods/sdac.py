"""Soft diffusion actor-critic (Ma et al., 2025, arXiv:2502.00361).

Reverse sampling score matching: for a noisy action, clean actions that it may
have come from are drawn, and the denoiser learns their noises, weighted by
exp(Q / temperature) of the clean actions. No gradient flows through the sampler
or the critics.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any
from typing import Literal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import critics
from acme_qsm.core import sampling
from acme_qsm.core.config import DiffusionConfig
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.networks import DiffusionNetworks

NoisyActionSource = Literal["policy", "replay", "uniform", "gaussian"]
ReverseSampling = Literal["truncated", "clipped", "unbounded"]
TemperatureUpdate = Literal["constant", "target_kl", "reference_decay"]
Weights = Literal["self_normalized", "exponential", "normalized_exponential"]

# Of the reference's decay, per action dimension.
_REFERENCE_ENTROPY = -0.9
_KL_BY_NOISE = (
  "weight_kl_low_noise",
  "weight_kl_mid_noise",
  "weight_kl_high_noise",
)
# What the paper says, or leaves to its implementation. It counts environment
# steps of five environments, and updates once in five of them.
_REFERENCE_LEARNING: dict[str, Any] = {
  "policy_learning_rate_schedule": "linear",
  "policy_learning_rate_end": 3e-5,
  "policy_learning_rate_begin": 25_000,
  "policy_learning_rate_steps": 50_000,
  "n_step": 1,
  "min_replay_size": 30_000,
  "samples_per_insert": 256 / 5,
  "boltzmann_temperature": 5.0,
  "temperature_update": "reference_decay",
  "temperature_learning_rate": 7e-3,
  "temperature_scales_noise": True,
}


@dataclasses.dataclass(frozen=True)
class SDACConfig(DiffusionConfig):
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
    weights: "self_normalized": softmax over the K samples. "exponential":
      exp(Q / temperature) / K. "normalized_exponential": the same, Q less the
      batch's mean and divided by its standard deviation.
    boltzmann_temperature: of the weights, where it starts; in units of the
      unscaled return, or in standard deviations of Q where that is normalised.
    temperature_update: how it moves. "constant". "target_kl": towards weights
      whose divergence from equal ones is `target_kl`. "reference_decay": as in
      the reference implementation, from wherever it starts to 0.0984 divided by
      exploration_noise, whatever the policy does.
    target_kl: the divergence wanted, in nats, averaged over noise levels; below
      log K.
    temperature_learning_rate: Adam's, for the logarithm of the temperature.
    temperature_update_period: updates of the policy per update of the
      temperature.
    min_temperature: where the temperature stops falling.
    temperature_scales_noise: whether exploration_noise and target_action_noise
      are in units of the temperature.
  """

  sampler: diffusion.TransitionName = "posterior"
  policy_update_period: int = configuration.positive(2)
  noisy_action_source: NoisyActionSource = "replay"
  noisy_action_scale: float = configuration.positive(1.0)
  num_reverse_samples: int = configuration.positive(16)
  reverse_sampling: ReverseSampling = "truncated"
  weights: Weights = "self_normalized"
  boltzmann_temperature: float = configuration.positive(0.1)
  temperature_update: TemperatureUpdate = "target_kl"
  target_kl: float = configuration.positive(2.0)
  temperature_learning_rate: float = configuration.positive(3e-3)
  temperature_update_period: int = configuration.positive(1)
  min_temperature: float = configuration.positive(1e-3)
  temperature_scales_noise: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.weights == "self_normalized" and self.num_reverse_samples == 1:
      self.fail(
        "num_reverse_samples",
        "at least 2 for weights='self_normalized' (one weight is always 1)",
      )
    limit = math.log(self.num_reverse_samples)
    if self.temperature_update == "target_kl" and self.target_kl >= limit:
      self.fail(
        "target_kl",
        f"below log K = {limit:.3f} for "
        f"num_reverse_samples={self.num_reverse_samples}",
      )
    if self.boltzmann_temperature < self.min_temperature:
      self.fail(
        "boltzmann_temperature",
        f"at least min_temperature={self.min_temperature}",
      )
    if self.temperature_update == "reference_decay" and not (
      self.exploration_noise > 0
    ):
      self.fail(
        "exploration_noise", "positive for temperature_update='reference_decay'"
      )


class SDACState(NamedTuple):
  """What soft diffusion actor-critic holds beside the shared state.

  Attributes:
    log_temperature: [] logarithm of the weights' temperature.
    opt_state: its optimiser's state.
  """

  log_temperature: jax.Array
  opt_state: optax.OptState


def init_extra(config: SDACConfig) -> SDACState:
  """The temperature before the first update."""
  log_temperature = jnp.log(jnp.float32(config.boltzmann_temperature))
  return SDACState(log_temperature, _optimizer(config).init(log_temperature))


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
    extra: SDACState,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[SDACState, types.Metrics]]:
    frozen_params = jax.tree.map(jax.lax.stop_gradient, params)
    observation = transitions.observation
    step_key, source_key = jax.random.split(keys[0])
    steps = jax.random.randint(
      step_key, observation.shape[:1], 0, schedule.num_steps
    )

    def draw_policy_action(key: jax.Array) -> jax.Array:
      return critics.draw_target_action(
        sampler,
        networks,
        config,
        frozen_params,
        context.critic_params,
        key,
        observation,
        noise_scale(config, extra),
      )

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
    temperature = jnp.exp(extra.log_temperature)
    weight = make_weights(config, q_value, temperature)
    noise_prediction = networks.denoise(
      params, observation, noisy_action, steps
    )
    loss = jnp.mean(
      losses.reverse_sampling_score_matching_loss(
        noise_prediction, noise, weight
      )
    )
    extra = update_temperature(config, extra, weight, context.updates)
    metrics = _measure(config, weight, steps)
    metrics = {
      "denoiser_loss": loss,
      "boltzmann_temperature": temperature,
      **metrics,
    }
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


def make_weights(
  config: SDACConfig, q_value: jax.Array, temperature: jax.Array
) -> jax.Array:
  """Weighs reverse samples by the critics.

  Args:
    config: how.
    q_value: [B, K] Q-values, of scaled rewards.
    temperature: [] the temperature.

  Returns:
    Weights [B, K]: see `losses.self_normalized_weights` and
    `losses.exponential_weights`.
  """
  if config.weights == "normalized_exponential":
    return losses.exponential_weights(q_value, temperature, normalize=True)
  q_value = q_value / config.reward_scale
  if config.weights == "exponential":
    return losses.exponential_weights(q_value, temperature)
  return losses.self_normalized_weights(q_value, temperature)


def update_temperature(
  config: SDACConfig, extra: SDACState, weight: jax.Array, updates: jax.Array
) -> SDACState:
  """Moves the temperature as the configuration says.

  Args:
    config: how, and how often.
    extra: the temperature.
    weight: [B, K] the weights at that temperature.
    updates: [] updates of the policy made before this one.

  Returns:
    The next temperature.
  """
  if config.temperature_update == "constant":
    return extra

  def loss(log_temperature: jax.Array) -> jax.Array:
    if config.temperature_update == "target_kl":
      share = weight / jnp.sum(weight, axis=1, keepdims=True)
      per_example = losses.temperature_loss(
        jnp.exp(log_temperature), share, config.target_kl
      )
      return jnp.mean(per_example)
    # The entropy of the exploration noise is driven to a target; per action
    # dimension, which is all the same to Adam.
    deviation = config.exploration_noise * jnp.exp(extra.log_temperature)
    entropy = 0.5 * jnp.log(2.0 * jnp.pi * jnp.e * jnp.square(deviation))
    return log_temperature * (entropy - _REFERENCE_ENTROPY)

  gradient = jax.grad(loss)(extra.log_temperature)
  change, opt_state = _optimizer(config).update(gradient, extra.opt_state)
  log_temperature = jnp.maximum(
    extra.log_temperature + jnp.asarray(change),
    math.log(config.min_temperature),
  )
  is_due = (updates + 1) % config.temperature_update_period == 0
  return jax.tree.map(
    lambda new, old: jnp.where(is_due, new, old),
    SDACState(log_temperature, opt_state),
    extra,
  )


def noise_scale(config: SDACConfig, extra: SDACState) -> jax.Array | None:
  """The factor of the noise on actions: the temperature, or none."""
  if not config.temperature_scales_noise:
    return None
  return jnp.exp(extra.log_temperature)


def _optimizer(config: SDACConfig) -> optax.GradientTransformation:
  return optax.adam(config.temperature_learning_rate)


def _measure(
  config: SDACConfig, weight: jax.Array, steps: jax.Array
) -> types.Metrics:
  """How uneven weights are, over all noise levels and by thirds of them."""
  share = weight / jnp.sum(weight, axis=1, keepdims=True)
  kl = losses.weight_kl(share)
  third = 3 * steps // config.num_denoising_steps
  metrics = {
    # Infinite or NaN before all else if the weights are: it stops the run.
    "largest_weight": jnp.max(weight) * weight.shape[1],
    "effective_sample_size": jnp.mean(losses.effective_sample_size(weight)),
    "weight_kl": jnp.mean(kl),
  }
  for number, name in enumerate(_KL_BY_NOISE):
    among = third == number
    metrics[name] = jnp.sum(kl * among) / jnp.maximum(jnp.sum(among), 1)
  return metrics


SDAC = Method(
  config=SDACConfig,
  make_policy_loss=make_policy_loss,
  metrics=(
    "denoiser_loss",
    "boltzmann_temperature",
    "effective_sample_size",
    "largest_weight",
    "weight_kl",
    *_KL_BY_NOISE,
  ),
  init_extra=init_extra,
  noise_scale=noise_scale,
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
