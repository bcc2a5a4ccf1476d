"""Iterated denoising energy matching as a policy (Akhound-Sadegh et al., 2024).

arXiv:2402.06121, with the critics as the energy: the denoiser is matched to the
score of the noised Boltzmann policy, which the critics' action gradient at
clean actions gives that a noisy action may have come from. No gradient flows
through the sampler.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable

from acme_qsm import configuration
from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import reverse_sampling
from acme_qsm.core import sampling
from acme_qsm.core import weights
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp
from acme_qsm.methods import presets

if typing.TYPE_CHECKING:
  from acme_qsm.networks import DiffusionNetworks

# exp of more is beyond what an entry of the target can be.
_LARGEST_LOG = 30.0


@dataclasses.dataclass(frozen=True)
class IDEMConfig(reverse_sampling.ReverseSamplingConfig):
  """Everything that iterated denoising energy matching can be told.

  The reverse samples' gradient is that of the lowest of the critics, divided by
  the temperature. Samples that are "truncated" to the box add what flows
  through its faces, 2 A evaluations of the critics for each sample of an action
  of A dimensions.
  """

  num_reverse_samples: int = configuration.positive(8)
  target_kl: float = configuration.positive(1.0)

  def __post_init__(self):
    if self.weights != "self_normalized":
      self.fail("weights", "'self_normalized'")
    super().__post_init__()


def make_policy_loss(
  networks: DiffusionNetworks, config: IDEMConfig
) -> PolicyLoss:
  """Makes the denoiser's loss.

  Args:
    networks: the denoiser and the critics.
    config: the noisy actions, the reverse samples and their temperature.

  Returns:
    The loss, a mean over the batch and the action's dimensions.
  """
  schedule = sampling.make_schedule(networks, config)
  draw = reverse_sampling.make_reverse_sampler(networks, config)

  def policy_loss(
    params: types.Params,
    extra: weights.Temperature,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[weights.Temperature, types.Metrics]]:
    observation = transitions.observation
    samples = draw(params, extra, transitions, keys, context)

    def energy(action: jax.Array) -> jax.Array:
      q_value = acting.lowest_q_value(
        networks, context.critic_params, observation, action
      )
      return q_value / (config.reward_scale * extra.value)

    target, share = noised_energy(config, schedule, energy, samples)
    noise_prediction = networks.denoise(
      params, observation, samples.noisy_action, samples.steps
    )
    target = jax.lax.stop_gradient(target)
    loss = jnp.mean(jnp.square(noise_prediction - target))
    metrics = {
      "denoiser_loss": loss,
      "target_size": jnp.sqrt(jnp.mean(jnp.square(target))),
      **weights.measure(extra, share, share, samples.steps, schedule.num_steps),
    }
    extra = weights.update_temperature(config, extra, share, context.updates)
    return loss, (extra, metrics)

  return policy_loss


def noised_energy(
  config: IDEMConfig,
  schedule: diffusion.NoiseSchedule,
  energy: Callable[[jax.Array], jax.Array],
  samples: reverse_sampling.ReverseSamples,
) -> tuple[jax.Array, jax.Array]:
  """The noise prediction of the noised Boltzmann policy at noisy actions.

  Args:
    config: whether the policy is bounded.
    schedule: the noise schedule.
    energy: actions [B, K, A] -> log-densities [B, K] up to a constant.
    samples: the noisy actions and their reverse samples.

  Returns:
    The noise prediction [B, A], and the samples' weights [B, K].
  """
  clean_action = samples.clean_action

  def total(action: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_density = energy(action)
    return jnp.sum(log_density), log_density

  gradient, log_density = jax.grad(total, has_aux=True)(clean_action)
  share = losses.self_normalized_weights(log_density, 1.0)
  alpha_bar = schedule.alpha_bars[samples.steps]
  if config.reverse_sampling == "clipped":
    # Beyond the box, that is flat.
    gradient *= jnp.abs(clean_action) < 1.0
  if config.reverse_sampling != "truncated":
    return losses.noised_energy_noise(gradient, share, alpha_bar), share
  batch_size, num_samples, size = clean_action.shape
  # Each sample moved onto each of the box's faces: [B, K, 2, A, A].
  ends = jnp.array([-1.0, 1.0])[:, None, None]
  faces = jnp.where(
    jnp.eye(size, dtype=bool), ends, clean_action[:, :, None, None]
  )
  at_faces = energy(faces.reshape(batch_size, -1, size)).reshape(
    batch_size, num_samples, 2, size
  )
  log_face = jax.nn.logsumexp(at_faces, axis=1) - math.log(num_samples)
  # Normalised by the samples and, as if one more lay on each, by the faces: of
  # few samples none may be near the face where the density is, whose share by
  # them alone is then many times what it is.
  log_total = jnp.logaddexp(
    jax.nn.logsumexp(log_density, axis=1)[:, None],
    jax.nn.logsumexp(log_face, axis=1),
  ) - math.log(num_samples + 2)
  log_flow = (
    log_face
    - log_total[:, None]
    + diffusion.density_at_bounds(
      schedule, samples.noisy_action, samples.steps, 1.0
    ).swapaxes(1, 2)
  )
  low, high = jnp.exp(jnp.minimum(log_flow, _LARGEST_LOG)).swapaxes(0, 1)
  target = losses.noised_energy_noise(gradient, share, alpha_bar, high - low)
  # It is a mean of noises that leave clean actions within the box.
  action_scale = jnp.sqrt(alpha_bar)[:, None]
  noise_scale = jnp.sqrt(1.0 - alpha_bar)[:, None]
  target = jnp.clip(
    target,
    (samples.noisy_action - action_scale) / noise_scale,
    (samples.noisy_action + action_scale) / noise_scale,
  )
  return target, share


IDEM = Method(
  config=IDEMConfig,
  make_policy_loss=make_policy_loss,
  metrics=("denoiser_loss", "target_size", *weights.METRICS),
  init_extra=weights.init_temperature,
  noise_scale=weights.noise_scale,
  presets={
    # Of the implementation of Ma et al. (2025), but for its noise, which there
    # decays: it has no temperature.
    "reference": IDEMConfig(
      **presets.REFERENCE,
      noisy_action_source="policy",
      num_reverse_samples=64,
      reverse_sampling="clipped",
      # Of the unscaled return: 1 of the scaled one.
      boltzmann_temperature=5.0,
      temperature_update="constant",
    ),
  },
)
"""Iterated denoising energy matching."""
