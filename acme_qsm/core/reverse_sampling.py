"""Noisy actions, and clean actions that they may have come from.

For methods whose denoiser learns what reverse samples say.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from acme_qsm import diffusion
from acme_qsm import types
from acme_qsm.configs.reverse_sampling import ReverseSamplingConfig
from acme_qsm.core import actions
from acme_qsm.core import sampling
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core import weights
from acme_qsm.core.training import Context
from acme_qsm.networks import DiffusionNetworks


class ReverseSamples(NamedTuple):
  """Noisy actions and what they may have come from.

  Attributes:
    steps: [B] denoising steps t.
    noisy_action: [B, A] noisy actions a_t.
    clean_action: [B, K, A] clean actions; within [-1, 1] unless unbounded.
    noise: [B, K, A] the noises between them and a_t, before any clip.
  """

  steps: jax.Array
  noisy_action: jax.Array
  clean_action: jax.Array
  noise: jax.Array


def make_clean_action_sampler(
  networks: DiffusionNetworks, config: ReverseSamplingConfig
) -> Callable[..., ReverseSamples]:
  """Makes what draws noisy actions and their reverse samples.

  Args:
    networks: the denoiser and the critics.
    config: where noisy actions come from, how many samples each has.

  Returns:
    (policy's parameters, temperature, transitions, two PRNG keys [2], context)
    -> samples, held constant; the keys are consumed.
  """
  schedule = sampling.make_schedule(networks, config)
  sampler = sampling.make_sampler(networks, config)
  bound = 1.0 if config.reverse_sampling == "truncated" else None

  def draw(
    params: types.Params,
    temperature: temperature_lib.Temperature,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> ReverseSamples:
    frozen_params = jax.tree.map(jax.lax.stop_gradient, params)
    observation = transitions.observation
    step_key, source_key = jax.random.split(keys[0])
    steps = jax.random.randint(
      step_key, observation.shape[:1], 0, schedule.num_steps
    )

    def draw_policy_action(key: jax.Array) -> jax.Array:
      action, _ = actions.draw_target_action(
        sampler,
        networks,
        config,
        frozen_params,
        context.critic_params,
        key,
        observation,
        weights.noise_scale(config, temperature),
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
      bound=bound,
    )
    if config.reverse_sampling == "clipped":
      clean_action = jnp.clip(clean_action, -1.0, 1.0)
    return ReverseSamples(steps, noisy_action, clean_action, noise)

  return draw


def draw_noisy_action(
  config: ReverseSamplingConfig,
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
