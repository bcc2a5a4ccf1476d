"""Soft actor-critic (Haarnoja et al., 2018, arXiv:1812.05905).

A Gaussian policy, squashed into the box, on the critics that all methods have:
what a diffusion policy is to be compared with.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any

from acme_qsm import configuration
from acme_qsm import losses
from acme_qsm import networks as networks_lib
from acme_qsm import types
from acme_qsm.core import acting
from acme_qsm.core import temperature as temperature_lib
from acme_qsm.core.config import ActorCriticConfig
from acme_qsm.core.method import Context
from acme_qsm.core.method import Method
from acme_qsm.core.method import PolicyLoss
from acme_qsm.deferred import jax
from acme_qsm.deferred import jnp

if typing.TYPE_CHECKING:
  from acme_qsm.networks import GaussianNetworks


@dataclasses.dataclass(frozen=True)
class GaussianConfig(ActorCriticConfig):
  """Everything that soft actor-critic can be told.

  Attributes:
    entropy_temperature: of the policy's entropy, where it starts; in units of
      scaled reward.
    entropy_temperature_learning_rate: Adam's, for its logarithm; 0 keeps it.
    target_entropy: the entropy that it is moved towards, in nats per dimension
      of the action; below log 2, which is the uniform policy's.
    entropy_in_target: whether the critics' target has the entropy of the next
      action, as in soft actor-critic; else it enters the policy's loss alone.
      Returns have it then too, which a categorical critic's atoms must hold:
      `critics.require_atoms_hold_returns`.
    evaluate_mode: whether evaluation takes the most likely action before it is
      squashed, not a random one.
  """

  entropy_temperature: float = configuration.positive(0.1)
  entropy_temperature_learning_rate: float = configuration.non_negative(3e-4)
  target_entropy: float = configuration.checked(
    -0.5,
    lambda value: value < math.log(2.0),
    "below log 2 = 0.693, the entropy of the uniform policy",
  )
  entropy_in_target: bool = True
  evaluate_mode: bool = True
  # The policy's own noise explores.
  exploration_noise: float = configuration.non_negative(0.0)
  target_action_noise: float = configuration.non_negative(0.0)

  def largest_bonus(self, action_size: int) -> float:
    """See `ActorCriticConfig`: no policy has more entropy than the uniform."""
    if not self.entropy_in_target:
      return 0.0
    return self.entropy_temperature * action_size * math.log(2.0)


def draw(
  networks: GaussianNetworks,
  params: types.Params,
  key: jax.Array,
  observation: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Draws actions through which the gradient flows.

  Args:
    networks: the policy.
    params: its parameters.
    key: a PRNG key, consumed.
    observation: [B, ...] observations.

  Returns:
    Actions [B, A] in [-1, 1] and their log-densities [B].
  """
  mean, log_std = networks.propose(params, observation)
  noise = jax.random.normal(key, mean.shape)
  action = mean + jnp.exp(log_std) * noise
  log_prob = losses.squashed_log_prob(action, mean, log_std)
  return jnp.tanh(action), log_prob


def make_sampler(
  networks: GaussianNetworks, config: GaussianConfig, evaluation: bool = False
) -> acting.Sampler:
  """Makes what draws actions, or in evaluation takes the mode's."""

  def sampler(
    params: types.Params, key: jax.Array, observation: jax.Array
  ) -> jax.Array:
    if evaluation and config.evaluate_mode:
      return jnp.tanh(networks.propose(params, observation).mean)
    return draw(networks, params, key, observation)[0]

  return sampler


def make_policy_loss(
  networks: GaussianNetworks, config: GaussianConfig
) -> PolicyLoss:
  """Makes the policy's loss.

  Args:
    networks: the policy and the critics.
    config: the temperature's target.

  Returns:
    The loss, a mean over the batch.
  """

  def policy_loss(
    params: types.Params,
    method_state: temperature_lib.Temperature,
    transitions: types.Transition,
    keys: jax.Array,
    context: Context,
  ) -> tuple[jax.Array, tuple[temperature_lib.Temperature, types.Metrics]]:
    observation = transitions.observation
    action, log_prob = draw(networks, params, keys[0], observation)
    q_value = acting.lowest_q_value(
      networks, context.critic_params, observation, action[:, None]
    )[:, 0]
    loss = jnp.mean(
      losses.soft_policy_loss(q_value, log_prob, method_state.value)
    )
    metrics = {
      "policy_loss": loss,
      "entropy": -jnp.mean(log_prob),
      "entropy_temperature": method_state.value,
    }

    def temperature_loss(log_value: jax.Array) -> jax.Array:
      per_example = losses.entropy_temperature_loss(
        log_value, log_prob, config.target_entropy * networks.action_size
      )
      return jnp.mean(per_example)

    method_state = temperature_lib.descend(
      method_state, temperature_loss, config.entropy_temperature_learning_rate
    )
    return loss, (method_state, metrics)

  return policy_loss


def make_next_value_bonus(
  networks: GaussianNetworks, config: GaussianConfig
) -> Callable[..., jax.Array] | None:
  """Makes what the entropy of the next action adds to its value.

  Args:
    networks: the policy.
    config: whether it does.

  Returns:
    See `Method.make_next_value_bonus`.
  """
  if not config.entropy_in_target:
    return None

  def bonus(
    params: types.Params,
    method_state: temperature_lib.Temperature,
    key: jax.Array,
    observation: jax.Array,
  ) -> jax.Array:
    # Of an action of its own: as good on average, and exact at the box's ends.
    _, log_prob = draw(networks, params, key, observation)
    return -method_state.value * log_prob

  return bonus


def _make_networks(*args: Any, **kwargs: Any) -> GaussianNetworks:
  # They are loaded with Haiku, once they are made.
  return networks_lib.make_gaussian_networks(*args, **kwargs)


GAUSSIAN = Method(
  config=GaussianConfig,
  make_policy_loss=make_policy_loss,
  metrics=("policy_loss", "entropy", "entropy_temperature"),
  init_method_state=lambda config: temperature_lib.start(
    config.entropy_temperature, config.entropy_temperature_learning_rate
  ),
  make_networks=_make_networks,
  make_sampler=make_sampler,
  make_next_value_bonus=make_next_value_bonus,
  presets={
    # Haarnoja et al. (2018), table 1.
    "paper": GaussianConfig(
      entropy_temperature=1.0,
      target_entropy=-1.0,
      n_step=1,
    ),
  },
)
"""Soft actor-critic."""
