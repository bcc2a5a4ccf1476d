"""Diffusion policy mirror descent (Ma et al., 2025, arXiv:2502.00361).

The policy becomes the density proportional to pi_old exp(Q / temperature): its
own actions are denoised, weighted by the critics. No gradient flows through the
sampler or the critics.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import NamedTuple

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import normalization
from acme_qsm.core import policy_samples
from acme_qsm.core import sampling
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core import updates
from acme_qsm.core import weights
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp
from acme_qsm.methods import presets

if typing.TYPE_CHECKING:
  from acme_qsm.networks import DiffusionNetworks


@dataclasses.dataclass(frozen=True)
class DPMDConfig(weights.WeightsConfig):
  """Everything that diffusion policy mirror descent can be told.

  The actions that it weighs have target_action_noise, as the critics' target's
  have.

  Attributes:
    num_policy_samples: K, actions of the policy for each next observation that
      are weighed against each other. 1 takes the action of the critics' target,
      which is there anyway, and weighs it against those of other observations:
      for weights="normalized_exponential".
    q_statistics_decay: of weights that are normalised, decay per update of the
      running mean and variance of Q, in [0, 1).
  """

  sampler: diffusion.TransitionName = "posterior"
  exploration_noise: float = configuration.non_negative(0.2)
  target_action_noise: float = configuration.non_negative(0.2)
  num_policy_samples: int = configuration.positive(4)
  target_kl: float = configuration.positive(0.7)
  q_statistics_decay: float = configuration.unit_interval(0.999, "[)")

  def __post_init__(self):
    super().__post_init__()
    self.check_num_samples("num_policy_samples")


class DPMDState(NamedTuple):
  """What mirror descent holds beside the shared state.

  Attributes:
    temperature: the weights' temperature.
    q_mean: [] running mean of Q, without bias; 0 before the first update.
    q_variance: [] running variance of Q, likewise.
  """

  temperature: temperature_lib.Temperature
  q_mean: jax.Array
  q_variance: jax.Array


def make_policy_loss(
  networks: DiffusionNetworks, config: DPMDConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: how many actions are weighed, and how.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  schedule = sampling.make_schedule(networks, config)
  sampler = sampling.make_sampler(networks, config)

  def policy_loss(
    params: types.Params,
    method_state: DPMDState,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[DPMDState, types.Metrics]]:
    observation = transitions.next_observation
    action = context.next_action[:, None]
    if config.num_policy_samples > 1:
      sample_key, noise_key = jax.random.split(keys[0])
      action = policy_samples.draw(
        sampler, params, sample_key, observation, config.num_policy_samples
      )
      # As the target's: a policy that learned nothing but its own samples would
      # lose their spread, as the sampler draws narrower than it was taught.
      noise = acting.scale_noise(
        config.target_action_noise, noise_scale(config, method_state)
      )
      action = acting.add_exploration_noise(noise_key, action, noise)
    q_value = acting.lowest_q_value(
      networks, context.critic_params, observation, action
    )
    q_value, method_state = standardize(
      config, method_state, q_value, context.updates
    )
    temperature = method_state.temperature
    if config.weights == "normalized_exponential":
      weight = losses.exponential_weights(q_value, temperature.value)
      normalized = losses.self_normalized_weights(q_value, temperature.value)
    else:
      weight = weights.weigh(config, q_value, temperature.value)
      normalized = weights.normalized_weights(
        config, q_value, temperature.value
      )
    loss, steps = policy_samples.denoising_loss(
      networks, schedule, params, keys[1], observation, action, weight
    )
    metrics = {
      "denoiser_loss": loss,
      **weights.measure(
        temperature, weight, normalized, steps, schedule.num_steps
      ),
    }
    temperature = weights.update_temperature(
      config, temperature, normalized, context.updates
    )
    return loss, (method_state._replace(temperature=temperature), metrics)

  return policy_loss


def standardize(
  config: DPMDConfig,
  method_state: DPMDState,
  q_value: jax.Array,
  num_updates: jax.Array,
) -> tuple[jax.Array, DPMDState]:
  """(Q - running mean) / running deviation, clipped, where weights want that.

  Args:
    config: whether, and how.
    method_state: the running moments.
    q_value: [B, K] Q-values, of scaled rewards.
    num_updates: [] updates made before this one.

  Returns:
    The same [B, K], standardised where weights are normalised, and the new
    moments.
  """
  if config.weights != "normalized_exponential":
    return q_value, method_state
  mean, variance = normalization.mix_moments(
    method_state.q_mean,
    method_state.q_variance,
    jnp.ravel(q_value),
    updates.newest_share(config.q_statistics_decay, num_updates),
  )
  standardized = losses.standardize(
    q_value, mean, jnp.sqrt(variance), config.q_value_clip
  )
  return standardized, method_state._replace(q_mean=mean, q_variance=variance)


def noise_scale(
  config: DPMDConfig, method_state: DPMDState
) -> jax.Array | None:
  """The factor [] of the noise on actions; None for none."""
  return weights.noise_scale(config, method_state.temperature)


DPMD = Method(
  config=DPMDConfig,
  make_policy_loss=make_policy_loss,
  metrics=("denoiser_loss", *weights.METRICS),
  init_method_state=lambda config: DPMDState(
    weights.init_temperature(config), jnp.zeros(()), jnp.zeros(())
  ),
  noise_scale=noise_scale,
  presets={
    # Of the implementation of Ma et al. (2025), with the brackets that its
    # standardisation lacks.
    "reference": DPMDConfig(
      **presets.REFERENCE,
      **presets.DECAYING_TEMPERATURE,
      exploration_noise=0.1,
      target_action_noise=0.1,
      num_policy_samples=1,
      weights="normalized_exponential",
      temperature_update_period=125,
    ),
  },
)
"""Diffusion policy mirror descent."""
