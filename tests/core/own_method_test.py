"""Methods of one's own, in `own_methods`, with steps of their own."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from tests.core.own_methods import on_policy
from tests.core.own_methods import stateful_critic

SPEC = acme_qsm.EnvironmentSpec(
  acme_qsm.ArraySpec((3,)),
  acme_qsm.ArraySpec((2,), minimum=-1.0, maximum=1.0),
)


@pytest.mark.parametrize("module", [on_policy, stateful_critic])
def test_it_has_60_lines(module):
  lines = inspect.getsource(module).splitlines()
  code = [x for x in lines if x and not x.startswith(("from ", "import "))]
  assert len(code) <= 60


def prepare(monkeypatch, module, config):
  monkeypatch.setitem(acme_qsm.methods.METHODS, "mine", module.METHOD)
  networks = acme_qsm.make_networks(SPEC, config)
  core = acme_qsm.make_learner_core(networks, config)
  return networks, core, core.init(jax.random.key(0))


@pytest.mark.parametrize("period", [1, 2])
def test_critics_with_a_state_and_a_key_are_trained(monkeypatch, period):
  config = stateful_critic.StatefulConfig(
    policy_hidden_sizes=(16,),
    critic_hidden_sizes=(32,),
    num_denoising_steps=2,
    num_action_moves=1,
    critic_learning_rate=3e-3,
    discount=0.0,
    policy_update_period=period,
  )
  networks, core, state = prepare(monkeypatch, stateful_critic, config)

  def make_batch(key):
    observation, action, noise = jax.random.normal(key, (3, 256, 3))
    # A size that the state is to find out, of an action's part and a noise.
    reward = 100.0 * (2.0 * jnp.tanh(action[:, 0]) + noise[:, 0])
    ends = jnp.zeros(256)
    return acme_qsm.Transition(
      observation, jnp.tanh(action[:, :2]), reward, ends, observation
    )

  batches = jax.vmap(make_batch)(jax.random.split(jax.random.key(1), 300))
  state, metrics = jax.jit(lambda s, b: jax.lax.scan(core.step, s, b))(
    state, batches
  )
  # Var tanh(N(0, 1)) is 0.394.
  variance = 4 * 0.394 + 1.0
  np.testing.assert_allclose(
    state.method_state, 100.0 * np.sqrt(variance), rtol=0.1
  )
  # What critics cannot know of targets of deviation 1 is the noise.
  np.testing.assert_allclose(
    np.mean(metrics["critic_loss"][-50:]), 1.0 / variance, rtol=0.15
  )
  # Another key is another step.
  batch = make_batch(jax.random.key(2))
  values = {
    float(core.step(state._replace(key=key), batch)[1]["critic_loss"])
    for key in jax.random.split(jax.random.key(3))
  }
  assert len(values) == 2
  policy = acme_qsm.make_policy(networks, config)
  params = core.variables["acting_policy"](state)
  assert policy(params, jax.random.key(0), jnp.zeros((5, 3))).shape == (5, 2)


def test_a_policy_that_gives_extras_is_trained_on_its_rollouts(monkeypatch):
  config = on_policy.OnPolicyConfig(
    policy_hidden_sizes=(32,), policy_learning_rate=1e-2
  )
  networks, core, state = prepare(monkeypatch, on_policy, config)
  with pytest.raises(ValueError, match="mine learns from rollouts"):
    acme_qsm.DiffusionBuilder(config)
  policy = acme_qsm.make_policy(networks, config)
  step, act = jax.jit(core.step), jax.jit(policy.apply)
  rewards = []
  for key in jax.random.split(jax.random.key(1), 40):
    observation_key, action_key = jax.random.split(key)
    observation = jax.random.normal(observation_key, (256, 3))
    action, extras = act(core.policy_params(state), action_key, observation)
    assert {name: x.shape[1:] for name, x in extras.items()} == {
      name: spec.shape for name, spec in policy.extras_spec.items()
    }
    reward = -jnp.sum(jnp.square(action - 0.5), axis=1)
    rollout = acme_qsm.Transition(
      observation, action, reward, jnp.zeros(256), observation, extras
    )
    state, metrics = step(state, rollout)
    # In its last epoch, the policy is another than the rollout's.
    assert 0.0 < metrics["ratio"] != 1.0
    rewards.append(float(jnp.mean(reward)))
  assert state.steps == 40
  assert np.mean(rewards[-5:]) > 0.5 * np.mean(rewards[:5])
  action = policy(state.params, jax.random.key(2), observation)
  np.testing.assert_allclose(jnp.mean(action, axis=0), 0.5, atol=0.15)
