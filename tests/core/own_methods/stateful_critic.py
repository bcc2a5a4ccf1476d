"""DIPO whose critics have a state and a key.

The state is the running size of their targets, which they are divided by; by
the key, critics are kept from a part of what they observe.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

import acme_qsm
from acme_qsm.core import actions
from acme_qsm.core import actor_critic
from acme_qsm.core import sampling
from acme_qsm.core import updates
from acme_qsm.methods import dipo


@dataclasses.dataclass(frozen=True)
class StatefulConfig(acme_qsm.DIPOConfig):
  """What it can be told: the share of features that critics do not see."""

  dropout: float = 0.1


def make_learner_core(networks, config):
  """Makes the learner: its update of the critics is its own."""
  sampler = sampling.make_sampler(networks, config)
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(config.critic_learning_rate)
  )

  def loss(params, size, key, target_params, batch, next_action):
    seen = jax.random.bernoulli(
      key, 1.0 - config.dropout, batch.observation.shape
    )
    found = networks.q_values(params, seen * batch.observation, batch.action)
    following = networks.q_values(
      target_params, batch.next_observation, next_action
    )
    next_value = size * jnp.min(following, axis=0)
    target = batch.reward + config.discount * batch.discount * next_value
    size = 0.9 * size + 0.1 * jnp.std(target)
    errors = found - jax.lax.stop_gradient(target / size)
    return jnp.mean(jnp.square(errors)), (size, {"target_size": size})

  def update_critics(state, batch, key):
    action_key, loss_key = jax.random.split(key)
    draw = (sampler, networks, config, state.policy_params)
    next_action, _ = actions.draw_target_action(
      *draw, state.target_critic_params, action_key, batch.next_observation
    )
    trained = (optimizer, state.critic_params, state.critic_opt_state)
    held = (state.method_state, loss_key, state.target_critic_params)
    done = updates.gradient_step(loss, *trained, *held, batch, next_action)
    size, metrics = done.aux
    state = state._replace(
      critic_params=done.params,
      critic_opt_state=done.opt_state,
      method_state=size,
    )
    return state, next_action, {"critic_loss": done.loss, **metrics}

  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=dipo.make_policy_loss(networks, config),
    sampler=sampler,
    init_method_state=lambda: jnp.ones(()),
    update_critics=update_critics,
    critic_optimizer=optimizer,
  )


METHOD = acme_qsm.Method(
  StatefulConfig, make_learner_core, sampling.make_policy
)
