"""Iterated denoising energy matching as a policy (Akhound-Sadegh et al., 2024).

arXiv:2402.06121, with the critics as the energy: the denoiser is matched to the
score of the noised Boltzmann policy, which the critics' values and action
gradients give at clean actions that a noisy action may have come from. No
gradient flows through the sampler.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm import types
from acme_qsm.configs.idem import IDEMConfig
from acme_qsm.configs.idem import PRESETS
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import reverse_sampling
from acme_qsm.core import sampling
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core import weights
from acme_qsm.core.learner_core import LearnerCore
from acme_qsm.core.method import Method
from acme_qsm.core.training import Context
from acme_qsm.core.training import PolicyLoss
from acme_qsm.networks import DiffusionNetworks


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

    def energy(action: jax.Array) -> jax.Array:
      q_value = critics.lowest_q_value(
        networks, context.critic_params, observation, action
      )
      return q_value / (config.reward_scale * method_state.value)

    target, normalized, gradient_share = noised_energy(
      config, schedule, energy, samples
    )
    noise_prediction = networks.denoise(
      params, observation, samples.noisy_action, samples.steps
    )
    target = jax.lax.stop_gradient(target)
    loss = jnp.mean(jnp.square(noise_prediction - target))
    metrics = {
      "denoiser_loss": loss,
      "target_size": jnp.sqrt(jnp.mean(jnp.square(target))),
      "gradient_share": jnp.mean(gradient_share),
      **weights.measure(
        method_state, normalized, normalized, samples.steps, schedule.num_steps
      ),
    }
    method_state = weights.update_temperature(
      config, method_state, normalized, context.updates
    )
    return loss, (method_state, metrics)

  return policy_loss


def noised_energy(
  config: IDEMConfig,
  schedule: diffusion.NoiseSchedule,
  energy: Callable[[jax.Array], jax.Array],
  samples: reverse_sampling.ReverseSamples,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The noise prediction of the noised Boltzmann policy at noisy actions.

  Args:
    config: whether the policy is bounded, and the estimator.
    schedule: the noise schedule.
    energy: actions [B, K, A] -> log-densities [B, K] up to a constant.
    samples: the noisy actions and their reverse samples.

  Returns:
    The noise prediction [B, A], the samples' weights [B, K], and the share of
    their gradients in it [B, A].
  """
  clean_action = samples.clean_action

  def total(action: jax.Array) -> tuple[jax.Array, jax.Array]:
    log_density = energy(action)
    return jnp.sum(log_density), log_density

  gradient, log_density = jax.grad(total, has_aux=True)(clean_action)
  weight = losses.self_normalized_weights(log_density, 1.0)
  noisy_action = samples.noisy_action
  if config.reverse_sampling == "clipped":
    # Beyond the box, critics are asked at its edge: the density is flat there.
    gradient *= jnp.abs(clean_action) < 1.0
    clean_action = diffusion.remove_noise(
      schedule,
      jnp.broadcast_to(noisy_action[:, None], samples.noise.shape),
      samples.noise,
      samples.steps,
    )
  bounded = config.reverse_sampling == "truncated"
  tilt = jnp.einsum("bk,bka->ba", weight, gradient)
  kernel, tilted_mean = diffusion.stein_kernel(
    schedule,
    noisy_action,
    samples.steps,
    clean_action,
    tilt,
    bound=1.0 if bounded else None,
  )
  action, gradient_share = losses.noised_energy_action(
    clean_action,
    gradient,
    weight,
    tilt,
    tilted_mean,
    kernel,
    mix=config.estimator == "least_variance",
  )
  if bounded:
    action = jnp.clip(action, -1.0, 1.0)
  alpha_bar = schedule.alpha_bars[samples.steps][:, None]
  target = (noisy_action - jnp.sqrt(alpha_bar) * action) / jnp.sqrt(
    1.0 - alpha_bar
  )
  return target, weight, gradient_share


def make_learner_core(
  networks: DiffusionNetworks, config: IDEMConfig
) -> LearnerCore:
  """Makes the learner: an off-policy actor-critic."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=make_policy_loss(networks, config),
    sampler=sampling.make_sampler(networks, config),
    init_method_state=lambda: weights.init_temperature(config),
    noise_scale=lambda state: weights.noise_scale(config, state),
  )


IDEM = Method(
  config=IDEMConfig,
  make_learner_core=make_learner_core,
  make_policy=sampling.make_policy,
  presets=PRESETS,
)
"""Iterated denoising energy matching."""
