"""A policy gradient that learns from rollouts, clipped as in PPO.

Its policy gives log-probabilities as extras; its step makes several epochs.
"""

import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import acme_qsm
from acme_qsm.core import acting
from acme_qsm.core import updates
from acme_qsm.methods import gaussian
from acme_qsm.networks import make_gaussian_networks


@dataclasses.dataclass(frozen=True)
class OnPolicyConfig(acme_qsm.GaussianConfig):
  """What it can be told: epochs over each rollout, and the ratio's clip."""

  num_epochs: int = 4
  clip: float = 0.2


class State(NamedTuple):
  """All that training needs to go on."""

  params: Any
  opt_state: optax.OptState
  steps: jax.Array


def make_policy(networks, config, evaluation=False):
  """Makes the policy, which gives log-probabilities too."""

  def apply(params, key, observation):
    action, log_prob = gaussian.draw(networks, params, key, observation)
    return action, {"log_prob": log_prob}

  spec = acme_qsm.ArraySpec(())
  return acting.Policy(apply, evaluation, {"log_prob": spec})


def make_learner_core(networks, config):
  """Makes the learner; a rollout's steps are episodes of their own."""
  optimizer = optax.adam(config.policy_learning_rate)

  def loss(params, rollout, advantage):
    raw = jnp.arctanh(jnp.clip(rollout.action, -0.999, 0.999))
    log_prob = acme_qsm.losses.squashed_log_prob(
      raw, *networks.propose(params, rollout.observation)
    )
    ratio = jnp.exp(log_prob - rollout.extras["log_prob"])
    clipped = jnp.clip(ratio, 1.0 - config.clip, 1.0 + config.clip)
    gain = jnp.minimum(ratio * advantage, clipped * advantage)
    return -jnp.mean(gain), {"ratio": jnp.mean(ratio)}

  def init(key):
    params = networks.init_policy(key)
    return State(params, optimizer.init(params), jnp.int32(0))

  def step(state, rollout):
    reward = rollout.reward
    advantage = (reward - jnp.mean(reward)) / (jnp.std(reward) + 1e-6)

    def epoch(state, _):
      done = updates.gradient_step(
        loss, optimizer, state.params, state.opt_state, rollout, advantage
      )
      state = state._replace(params=done.params, opt_state=done.opt_state)
      return state, {"policy_loss": done.loss, **done.aux}

    state, metrics = jax.lax.scan(epoch, state, length=config.num_epochs)
    last = jax.tree.map(lambda x: x[-1], metrics)
    return state._replace(steps=state.steps + 1), last

  return acme_qsm.LearnerCore(
    init=init,
    step=step,
    policy_params=lambda state: state.params,
    variables={"acting_policy": lambda state: state.params},
  )


METHOD = acme_qsm.Method(
  OnPolicyConfig,
  make_learner_core,
  make_policy,
  make_gaussian_networks,
  data="rollouts",
)
