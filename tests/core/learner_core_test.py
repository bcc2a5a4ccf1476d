"""The training step, against derivations on paper and by autodiff."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm import diffusion
from acme_qsm.core import actor_critic
from acme_qsm.core import sampling


@pytest.fixture(scope="module")
def core(networks, config):
  return acme_qsm.make_learner_core(networks, config)


@pytest.fixture(scope="module")
def step(core):
  return jax.jit(core.step)


def assert_trees_close(first, second, **tolerances):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, **tolerances),
    without_keys(first),
    without_keys(second),
  )


def without_keys(state):
  """Typed PRNG keys are no numbers: compare what they hold."""
  return state._replace(key=jax.random.key_data(state.key))


def test_the_same_twice_is_bit_equal(core, step, make_batch):
  state, batch = core.init(jax.random.key(0)), make_batch(0, 8)
  first, second = step(state, batch), step(state, batch)
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(
    np.testing.assert_array_equal,
    (without_keys(first[0]), first[1]),
    (without_keys(second[0]), second[1]),
  )


def test_init_is_a_function_of_the_key(core):
  first, again, other = (core.init(jax.random.key(seed)) for seed in (0, 0, 1))
  assert_trees_close(first, again, rtol=0)
  name = "denoiser/perceptron"
  assert (
    first.policy_params[name]["first_weights_0"]
    != other.policy_params[name]["first_weights_0"]
  ).all()
  jax.tree.map(
    np.testing.assert_array_equal,
    first.critic_params,
    first.target_critic_params,
  )
  assert first.steps == 0


def test_metrics(core, step, make_batch):
  _, metrics = step(core.init(jax.random.key(0)), make_batch(0, 8))
  assert set(metrics) >= {
    "critic_loss",
    "denoiser_loss",
    "q_value",
    "action_gradient_size",
    "saturated_actions",
  }
  for value in metrics.values():
    assert value.shape == ()
    assert jnp.isfinite(value)
  assert 0 <= metrics["saturated_actions"] <= 1


def test_steps_and_keys_advance(core, step, make_batch):
  state = core.init(jax.random.key(0))
  keys = [jax.random.key_data(state.key)]
  for i in range(3):
    state, _ = step(state, make_batch(0, 8))
    assert state.steps == i + 1
    keys.append(jax.random.key_data(state.key))
  assert len({tuple(np.ravel(key).tolist()) for key in keys}) == 4


@pytest.mark.parametrize(("start", "saturated"), [(0.0, 0.0), (1e6, 1.0)])
def test_noise_saturates_no_actions(
  config, make_constant_networks, start, saturated
):
  config = dataclasses.replace(
    config,
    target_action_noise=5.0,
    # All samples are 0, or at either end.
    sampling_start_scale=start,
    sampling_temperature=0.0,
  )
  core = acme_qsm.make_learner_core(make_constant_networks([[0.0]]), config)
  state = core.init(jax.random.key(0))
  state = state._replace(policy_params=jnp.zeros_like(state.policy_params))
  zeros = jnp.zeros(32)
  transitions = acme_qsm.Transition(
    zeros[:, None], zeros[:, None], zeros, zeros, zeros[:, None]
  )
  _, metrics = jax.jit(core.step)(state, transitions)
  assert metrics["saturated_actions"] == saturated


def recording(keys, function):
  """The same, whose keys are noted: (params, key, observation) ->."""

  def record(params, key, observation):
    keys.append(key)
    return function(params, key, observation)

  return record


def make_plain_core(networks, config, **choices):
  """An actor-critic whose policy learns nothing."""
  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=lambda params, method_state, *_: (0.0, (method_state, {})),
    **{"sampler": sampling.make_sampler(networks, config), **choices},
  )


def test_diagnostics_draw_by_a_key_of_their_own(networks, config, make_batch):
  keys = []
  sampler = recording(keys, sampling.make_sampler(networks, config))
  core = make_plain_core(networks, config, sampler=sampler)
  state = core.init(jax.random.key(0))
  core.diagnostics(state, make_batch(0, 8))
  assert len(keys) == 1
  # As JAX does by default from 0.5 on.
  with jax.threefry_partitionable(True):
    for key in (state.key, *jax.random.split(state.key, 4)):
      assert not np.array_equal(*map(jax.random.key_data, (key, keys[0])))
    first = jax.random.fold_in(state.key, 0)
    assert first == jax.random.split(state.key, 4)[0]


def test_a_bonus_draws_by_a_key_of_its_own(networks, config, make_batch):
  keys = []
  bonus = recording(keys, lambda params, key, o: jnp.zeros(o.shape[0]))
  core = make_plain_core(
    networks,
    config,
    next_value_bonus=lambda params, method_state, *rest: bonus(params, *rest),
  )
  state = core.init(jax.random.key(0))
  # As JAX does by default from 0.5 on, where a small number folded in makes one
  # of the keys that are split off.
  with jax.threefry_partitionable(True):
    core.step(state, make_batch(0, 8))
    assert len(keys) == 1
    others = [
      key
      for parent in jax.random.split(state.key, 4)
      for key in (parent, *jax.random.split(parent, 4))
    ]
    for key in others:
      assert not np.array_equal(*map(jax.random.key_data, (key, keys[0])))


@pytest.mark.parametrize("target_policy", ["online", "target"])
def test_who_draws_the_target_s_actions(
  networks, config, make_batch, target_policy
):
  seen = []

  def sampler(params, key, observation):
    seen.append(params)
    return jnp.zeros((observation.shape[0], 2))

  core = make_plain_core(
    networks, config, sampler=sampler, target_policy=target_policy
  )
  state = core.init(jax.random.key(0))
  core.step(state, make_batch(0, 8))
  online = target_policy == "online"
  expected = state.policy_params if online else state.target_policy_params
  assert seen == [expected]


def test_policy_params(core):
  state = core.init(jax.random.key(0))._replace(steps=jnp.int32(3))
  params = core.policy_params(state)
  assert params.policy is state.policy_params
  assert params.target_policy is state.target_policy_params
  assert params.critics is state.critic_params
  assert params.steps == 3


def test_every_parameter_moves(core, step, make_batch):
  state = core.init(jax.random.key(0))
  after, _ = step(state, make_batch(0, 8))
  for name in ("policy_params", "critic_params"):
    moves = jax.tree.map(
      lambda x, y: float(jnp.abs(x - y).max()),
      getattr(state, name),
      getattr(after, name),
    )
    assert all(move > 0 for move in jax.tree.leaves(moves)), moves


@pytest.mark.parametrize("rate", [0.005, 0.3, 1.0])
def test_targets_move_by_tau(rate, config, make_batch, make_constant_networks):
  config = dataclasses.replace(
    config, target_update_rate=rate, num_denoising_steps=1
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[1.0, 2.0]], [5.0], num_steps=1), config
  )
  state = core.init(jax.random.key(0))
  # Away from the online ones, which they equal at the start.
  state = state._replace(
    target_critic_params=jax.tree.map(
      lambda x: x + 1, state.target_critic_params
    ),
    target_policy_params=state.target_policy_params + 1,
  )
  after, _ = jax.jit(core.step)(state, make_batch(0, 8))
  jax.tree.map(
    lambda target, online, got: np.testing.assert_allclose(
      got, (1 - rate) * target + rate * online, rtol=1e-6
    ),
    (state.target_critic_params, state.target_policy_params),
    (after.critic_params, after.policy_params),
    (after.target_critic_params, after.target_policy_params),
  )


def test_a_scan_is_a_loop(core, step, make_batch):
  batches = make_batch(0, 4, 8)
  start = core.init(jax.random.key(0))
  scanned, scanned_metrics = jax.jit(
    lambda state, batches: jax.lax.scan(core.step, state, batches)
  )(start, batches)
  state, losses = start, []
  for i in range(4):
    state, metrics = step(state, jax.tree.map(lambda x, i=i: x[i], batches))
    losses.append(metrics["critic_loss"])
  # Adam divides gradients by their size, so that rounding can show in the
  # parameters at a hundredth of the learning rate (3e-4).
  assert_trees_close(scanned, state, rtol=1e-4, atol=3e-6)
  np.testing.assert_allclose(
    scanned_metrics["critic_loss"], jnp.stack(losses), rtol=1e-4
  )


def test_seeds_under_vmap_are_single_runs(core, step, make_batch):
  keys = jax.random.split(jax.random.key(0), 3)
  batches = make_batch(0, 3, 8)
  states, metrics = jax.jit(jax.vmap(core.step))(
    jax.vmap(core.init)(keys), batches
  )
  for i in range(3):
    state, single_metrics = step(
      core.init(keys[i]), jax.tree.map(lambda x, i=i: x[i], batches)
    )
    # As above.
    assert_trees_close(
      jax.tree.map(lambda x, i=i: x[i], states), state, rtol=1e-4, atol=3e-6
    )
    np.testing.assert_allclose(
      metrics["denoiser_loss"][i], single_metrics["denoiser_loss"], rtol=1e-4
    )


def test_donated_buffers(core, step, make_batch):
  batch = make_batch(0, 8)
  donating = jax.jit(core.step, donate_argnums=0)
  state, kept = core.init(jax.random.key(0)), core.init(jax.random.key(0))
  with warnings.catch_warnings():
    # Not of what other libraries warn of as they are loaded.
    warnings.filterwarnings("error", message=".*donated buffers")
    for _ in range(2):
      before = state
      state, _ = donating(state, batch)
      kept, _ = step(kept, batch)
      assert jax.tree.leaves(before.policy_params)[0].is_deleted()
  assert_trees_close(state, kept, rtol=1e-4, atol=3e-6)  # As above.


def test_critic_loss_on_paper(config, make_constant_networks, first_gradient):
  # Values that no action changes: y = 2 r + 0.9 d min(5, 3) against 1 and 4.
  networks = make_constant_networks(np.zeros((2, 1)), [1.0, 4.0])
  config = dataclasses.replace(config, discount=0.9, reward_scale=2.0)
  core = acme_qsm.make_learner_core(networks, config)
  state = core.init(jax.random.key(0))
  state = state._replace(
    target_critic_params={
      "b": jnp.asarray([5.0, 3.0]),
      "c": jnp.zeros((2, 1)),
    }
  )
  batch = acme_qsm.Transition(
    observation=jnp.zeros((3, 1)),
    action=jnp.zeros((3, 1)),
    reward=jnp.asarray([1.0, 1.0, -1.0]),
    discount=jnp.asarray([1.0, 0.0, 0.5]),
    next_observation=jnp.zeros((3, 1)),
  )
  after, metrics = jax.jit(core.step)(state, batch)
  targets = np.array([2 + 0.9 * 3, 2.0, -2 + 0.45 * 3])
  errors = np.array([1.0, 4.0])[:, None] - targets
  np.testing.assert_allclose(
    metrics["critic_loss"], np.mean(np.sum(errors**2, axis=0)), rtol=1e-5
  )
  np.testing.assert_allclose(metrics["q_value"], 2.5, rtol=1e-6)
  np.testing.assert_allclose(
    first_gradient(after.critic_opt_state)["b"],
    2 * np.mean(errors, axis=1),
    rtol=1e-4,
  )


def test_target_actions_come_from_the_next_observation(
  config, make_constant_networks
):
  # The denoiser heads for the observation at once (see policy_test), so the
  # target critics, Q'(s, a) = a, tell what they were asked at.
  schedule = diffusion.make_schedule("vp", 3)

  def denoise(params, observation, action, step):
    beta, alpha, alpha_bar = (
      x[step] if step.ndim == 0 else x[step][:, None] for x in schedule
    )
    change = action - jnp.sqrt(alpha) * observation
    return change * jnp.sqrt(1 - alpha_bar) / beta + 0 * params[0, 0]

  networks = dataclasses.replace(
    make_constant_networks([[1.0]], [0.0]), denoise=denoise
  )
  config = dataclasses.replace(config, discount=1.0, target_action_noise=0.0)
  core = acme_qsm.make_learner_core(networks, config)
  batch = acme_qsm.Transition(
    observation=jnp.full((8, 1), -0.7),
    action=jnp.zeros((8, 1)),
    reward=jnp.zeros((8,)),
    discount=jnp.ones((8,)),
    next_observation=jnp.full((8, 1), 0.4),
  )
  _, metrics = jax.jit(core.step)(core.init(jax.random.key(0)), batch)
  # Q(s, 0) = 0 against y = 0.4.
  np.testing.assert_allclose(metrics["critic_loss"], 0.16, rtol=1e-4)
  # With noise, E[(0.4 + 0.1 z)^2] = 0.17.
  config = dataclasses.replace(config, target_action_noise=0.1)
  core = acme_qsm.make_learner_core(networks, config)
  batch = jax.tree.map(lambda x: jnp.repeat(x, 2500, axis=0), batch)
  _, metrics = jax.jit(core.step)(core.init(jax.random.key(0)), batch)
  # The square's standard deviation is 0.081: five standard errors of 20 000.
  np.testing.assert_allclose(
    metrics["critic_loss"], 0.17, atol=5 * 0.081 / np.sqrt(20_000)
  )


def _target_square(networks, config, state_fields):
  """The mean square of the critics' target, where Q(s, a) = a and r = 0."""
  config = dataclasses.replace(config, discount=1.0, target_action_noise=0.0)
  core = acme_qsm.make_learner_core(networks, config)
  batch = acme_qsm.Transition(
    observation=jnp.zeros((8, 1)),
    action=jnp.zeros((8, 1)),
    reward=jnp.zeros((8,)),
    discount=jnp.ones((8,)),
    next_observation=jnp.zeros((8, 1)),
  )
  state = core.init(jax.random.key(0))._replace(**state_fields)
  return jax.jit(core.step)(state, batch)[1]["critic_loss"]


def test_target_actions_come_from_the_online_denoiser(
  config, make_constant_networks
):
  schedule = diffusion.make_schedule("vp", 3)

  def denoise(params, observation, action, step):
    # Heads for the parameter at once.
    beta, alpha, alpha_bar = (
      x[step] if step.ndim == 0 else x[step][:, None] for x in schedule
    )
    change = action - jnp.sqrt(alpha) * params[0, 0]
    return change * jnp.sqrt(1 - alpha_bar) / beta

  networks = dataclasses.replace(
    make_constant_networks([[1.0]], [0.0]), denoise=denoise
  )
  fields = {
    "policy_params": jnp.full((3, 1), -0.5),
    "target_policy_params": jnp.full((3, 1), 0.6),
  }
  got = _target_square(networks, config, fields)
  np.testing.assert_allclose(got, 0.5**2, rtol=1e-4)


def test_target_actions_are_the_best_of_their_candidates(
  config, make_constant_networks
):
  networks = make_constant_networks([[1.0]], [0.0])
  squares = [
    _target_square(
      networks, dataclasses.replace(config, num_target_candidates=n), {}
    )
    for n in (1, 100)
  ]
  # Of 100 samples of this wide a policy, one is clipped to 1; of 8 single ones
  # at least one is not within 0.1 of either bound.
  np.testing.assert_allclose(squares[1], 1.0, rtol=1e-6)
  assert squares[0] < 0.95


@pytest.mark.parametrize(
  ("discount", "expected"), [(0.0, 3.0), (1.0, 6.0)], ids=["end", "truncated"]
)
def test_critics_learn_the_return(
  networks, config, make_batch, discount, expected
):
  # A reward of 1.5, scaled by 2, at every step. Where episodes end there, that
  # is the value; where they only stop being watched, 3 / (1 - 0.5).
  config = dataclasses.replace(
    config,
    discount=0.5,
    reward_scale=2.0,
    critic_learning_rate=1e-2,
    target_update_rate=0.1,
  )
  core = acme_qsm.make_learner_core(networks, config)
  batches = make_batch(0, 400, 16)._replace(
    reward=jnp.full((400, 16), 1.5), discount=jnp.full((400, 16), discount)
  )
  state, _ = jax.jit(lambda s, b: jax.lax.scan(core.step, s, b))(
    core.init(jax.random.key(0)), batches
  )
  values = networks.q_values(
    state.critic_params,
    batches.observation.reshape(-1, 3),
    batches.action.reshape(-1, 2),
  )
  # The mean is what learning gets right; a small network at a large learning
  # rate leaves a few percent of noise around it.
  np.testing.assert_allclose(jnp.mean(values, axis=1), expected, rtol=0.05)
  assert jnp.mean(jnp.abs(values - expected)) < 0.1 * expected


def test_batches_of_the_wrong_shape_are_refused(core, make_batch):
  batch = make_batch(0, 8)
  state = core.init(jax.random.key(0))
  with pytest.raises(AssertionError):
    jax.jit(core.step)(state, batch._replace(reward=batch.reward[:, None]))
  with pytest.raises(AssertionError):
    jax.jit(core.step)(state, batch._replace(action=batch.action[:, :1]))
