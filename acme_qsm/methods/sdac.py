"""Soft diffusion actor-critic (Ma et al., 2025, arXiv:2502.00361).

Reverse sampling score matching: for a noisy action, clean actions that it may
have come from are drawn, and the denoiser learns their noises, weighted by
exp(Q / temperature) of the clean actions. No gradient flows through the sampler
or the critics.
"""

from __future__ import annotations

import dataclasses
import typing

from acme_qsm import configuration
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import reverse_sampling
from acme_qsm.core import temperature as temperature_lib
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
class SDACConfig(reverse_sampling.ReverseSamplingConfig):
  """Everything that soft diffusion actor-critic can be told."""

  policy_update_period: int = configuration.positive(2)


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
  draw = reverse_sampling.make_clean_action_sampler(networks, config)

  def policy_loss(
    params: types.Params,
    method_state: temperature_lib.Temperature,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[temperature_lib.Temperature, types.Metrics]]:
    observation = transitions.observation
    samples = draw(params, method_state, transitions, keys, context)
    q_value = acting.lowest_q_value(
      networks, context.critic_params, observation, samples.clean_action
    )
    weight = weights.weigh(config, q_value, method_state.value)
    normalized = weights.normalized_weights(config, q_value, method_state.value)
    noise_prediction = networks.denoise(
      params, observation, samples.noisy_action, samples.steps
    )
    loss = jnp.mean(
      losses.reverse_sampling_score_matching_loss(
        noise_prediction, samples.noise, weight
      )
    )
    metrics = {
      "denoiser_loss": loss,
      **weights.measure(
        method_state,
        weight,
        normalized,
        samples.steps,
        config.num_denoising_steps,
      ),
    }
    method_state = weights.update_temperature(
      config, method_state, normalized, context.updates
    )
    return loss, (method_state, metrics)

  return policy_loss


SDAC = Method(
  config=SDACConfig,
  make_policy_loss=make_policy_loss,
  metrics=("denoiser_loss", *weights.METRICS),
  init_method_state=weights.init_temperature,
  noise_scale=weights.noise_scale,
  presets={
    "paper": SDACConfig(
      **presets.PAPER,
      noisy_action_source="policy",
      num_reverse_samples=1,
      reverse_sampling="clipped",
      weights="normalized_exponential",
      policy_update_period=1,
      temperature_update_period=250,
    ),
    "reference": SDACConfig(
      **presets.REFERENCE,
      **presets.DECAYING_TEMPERATURE,
      noisy_action_source="policy",
      num_reverse_samples=64,
      reverse_sampling="clipped",
      weights="self_normalized",
      temperature_update_period=125,
    ),
  },
)
"""Soft diffusion actor-critic."""
