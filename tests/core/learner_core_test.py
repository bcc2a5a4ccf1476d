"""The training step, against derivations on paper and by autodiff."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import acme_qsm
from acme_qsm import diffusion
from acme_qsm import networks as networks_lib


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


def first_gradient(opt_state):
  """What Adam was given at its first step: its mean is (1 - 0.9) of that."""
  return jax.tree.map(
    lambda x: np.asarray(x) / 0.1, optax.tree_utils.tree_get(opt_state, "mu")
  )


def make_constant_networks(critic_gradients, values=(0.0, 0.0), num_steps=3):
  """Networks whose updates can be worked out on paper.

  The denoiser predicts a vector per denoising step, whatever the action; critic
  i's value is b_i + c_i . a.

  Args:
    critic_gradients: [N, A] the c_i.
    values: [N] the b_i.
    num_steps: denoising steps.
  """
  critic_gradients = jnp.asarray(critic_gradients, jnp.float32)
  action_size = critic_gradients.shape[1]
  return networks_lib.QSMNetworks(
    init_denoiser=lambda key: jnp.full((num_steps, action_size), 0.3),
    denoise=lambda params, o, a, t: jnp.broadcast_to(params[t], a.shape),
    init_critics=lambda key: {
      "b": jnp.asarray(values, jnp.float32),
      "c": critic_gradients,
    },
    criticize=lambda params, o, a: params["b"][:, None] + params["c"] @ a.T,
    action_size=action_size,
  )


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
    first.denoiser_params[name]["first_weights_0"]
    != other.denoiser_params[name]["first_weights_0"]
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


def test_policy_params(core):
  state = core.init(jax.random.key(0))._replace(steps=jnp.int32(3))
  params = core.policy_params(state)
  assert params.denoiser is state.denoiser_params
  assert params.target_denoiser is state.target_denoiser_params
  assert params.critics is state.critic_params
  assert params.steps == 3


def test_every_parameter_moves(core, step, make_batch):
  state = core.init(jax.random.key(0))
  after, _ = step(state, make_batch(0, 8))
  for name in ("denoiser_params", "critic_params"):
    moves = jax.tree.map(
      lambda x, y: float(jnp.abs(x - y).max()),
      getattr(state, name),
      getattr(after, name),
    )
    assert all(move > 0 for move in jax.tree.leaves(moves)), moves


@pytest.mark.parametrize("rate", [0.005, 0.3, 1.0])
def test_targets_move_by_tau(rate, config, make_batch):
  config = dataclasses.replace(
    config, target_update_rate=rate, num_denoising_steps=1
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[1.0, 2.0]], [5.0], num_steps=1), config
  )
  state = core.init(jax.random.key(0))
  # Away from the newest ones, which they equal at the start.
  state = state._replace(
    target_critic_params=jax.tree.map(
      lambda x: x + 1, state.target_critic_params
    ),
    target_denoiser_params=state.target_denoiser_params + 1,
  )
  after, _ = jax.jit(core.step)(state, make_batch(0, 8))
  jax.tree.map(
    lambda target, newest, got: np.testing.assert_allclose(
      got, (1 - rate) * target + rate * newest, rtol=1e-6
    ),
    (state.target_critic_params, state.target_denoiser_params),
    (after.critic_params, after.denoiser_params),
    (after.target_critic_params, after.target_denoiser_params),
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
      assert jax.tree.leaves(before.denoiser_params)[0].is_deleted()
  assert_trees_close(state, kept, rtol=1e-4, atol=3e-6)  # As above.


@pytest.mark.parametrize(
  ("score_target", "normalize", "clip"),
  [
    ("action_gradient", False, None),
    ("boltzmann", True, None),
    ("boltzmann", True, 2.0),
  ],
)
def test_denoiser_gradient_derived_anew(
  networks, config, make_batch, score_target, normalize, clip
):
  config = dataclasses.replace(
    config,
    score_target=score_target,
    normalize_action_gradient=normalize,
    q_score_scale=3.0,
    action_gradient_clip=clip,
  )
  batch = make_batch(0, 8)
  seen = []

  def denoise(params, observation, action, step):
    if step.ndim:  # In the loss; the sampler's steps are scalars.
      jax.debug.callback(
        lambda a, t: seen.append((np.array(a), np.array(t))), action, step
      )
    return networks.denoise(params, observation, action, step)

  core = acme_qsm.make_learner_core(
    dataclasses.replace(networks, denoise=denoise), config
  )
  state = core.init(jax.random.key(0))
  after, metrics = jax.jit(core.step)(state, batch)
  jax.effects_barrier()
  noisy_action, steps = seen[-1]
  assert steps.shape == (8,)

  # The mean of the updated critics' gradients, one critic and one example at a
  # time.
  def q_value(action, observation, i):
    return networks.criticize(
      after.critic_params, observation[None], action[None]
    )[i, 0]

  action_gradient = np.mean(
    [
      jax.vmap(jax.grad(q_value), in_axes=(0, 0, None))(
        jnp.asarray(noisy_action), batch.observation, i
      )
      for i in range(2)
    ],
    axis=0,
  )
  size = np.sqrt(np.mean(action_gradient**2))
  np.testing.assert_allclose(metrics["action_gradient_size"], size, rtol=1e-4)
  target = -3.0 * action_gradient / (size if normalize else 1.0)
  if clip is not None:
    # Some are clipped here, and some are not.
    assert 0 < np.sum(np.abs(target) > clip) < target.size
    target = np.minimum(np.maximum(target, -clip), clip)
  if score_target == "boltzmann":
    alpha_bars = np.asarray(diffusion.make_schedule("vp", 3).alpha_bars)
    target = np.sqrt(1 - alpha_bars[steps])[:, None] * (noisy_action + target)

  def loss(params):
    noise_prediction = networks.denoise(
      params, batch.observation, jnp.asarray(noisy_action), jnp.asarray(steps)
    )
    return jnp.sum((noise_prediction - target) ** 2) / (8 * 2)

  value, gradient = jax.value_and_grad(loss)(state.denoiser_params)
  np.testing.assert_allclose(metrics["denoiser_loss"], value, rtol=1e-4)
  jax.tree.map(
    lambda got, expected: np.testing.assert_allclose(
      got, expected, rtol=1e-3, atol=1e-5
    ),
    first_gradient(after.denoiser_opt_state),
    gradient,
  )


def test_noisy_actions_have_the_schedules_moments(config):
  # With constant predictions and gradients, the denoiser's gradient tells the
  # mean noisy action of each denoising step, and how often each is drawn:
  # E[2 / (A T) (w - sqrt(1 - abar_t) (sqrt(abar_t) a - kappa c))].
  size, action, c = 100_000, 0.6, 0.4
  config = dataclasses.replace(
    config, normalize_action_gradient=False, critic_learning_rate=1e-12
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[c]], [0.0]), config
  )
  zeros = jnp.zeros((size,))
  batch = acme_qsm.Transition(
    jnp.zeros((size, 1)),
    jnp.full((size, 1), action),
    zeros,
    zeros,
    jnp.zeros((size, 1)),
  )
  after, _ = jax.jit(core.step)(core.init(jax.random.key(0)), batch)
  u = np.array([1, 2, 3]) / 3  # See diffusion_test on the vp schedule.
  alpha_bars = np.exp(-(0.1 * u + 9.9 * u**2 / 2))
  target = np.sqrt(1 - alpha_bars) * (np.sqrt(alpha_bars) * action - 10.0 * c)
  expected = 2 / 3 * (0.3 - target)
  # Each is the mean over the batch of a term below 2 * 5 that is there for a
  # third of it: five standard errors of at most 10 sqrt(1 / 3).
  np.testing.assert_allclose(
    first_gradient(after.denoiser_opt_state)[:, 0],
    expected,
    atol=5 * 10 * np.sqrt(1 / 3 / size),
  )


def test_normalising_makes_the_scale_of_q_irrelevant(config, make_batch):
  # Critics a thousand times as steep, the same update of the denoiser.
  config = dataclasses.replace(config, critic_learning_rate=1e-12)
  gradients = []
  for factor in (1.0, 1000.0):
    core = acme_qsm.make_learner_core(
      make_constant_networks(factor * np.array([[0.1, -0.2], [0.3, 0.4]])),
      config,
    )
    after, _ = jax.jit(core.step)(
      core.init(jax.random.key(0)), make_batch(0, 8)
    )
    gradients.append(first_gradient(after.denoiser_opt_state))
  np.testing.assert_allclose(*gradients, rtol=1e-4)


def test_a_flat_critic_is_left_alone(config, make_batch):
  networks = dataclasses.replace(
    make_constant_networks(np.zeros((2, 2))),
    criticize=lambda params, o, a: jnp.zeros((2, a.shape[0])),
  )
  core = acme_qsm.make_learner_core(networks, config)
  after, metrics = jax.jit(core.step)(
    core.init(jax.random.key(0)), make_batch(0, 8)
  )
  assert metrics["action_gradient_size"] == 0.0
  assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(metrics))
  assert jnp.isfinite(after.denoiser_params).all()


def test_action_gradient_size_is_a_debiased_running_mean(config, make_batch):
  config = dataclasses.replace(
    config, critic_learning_rate=0.1, action_gradient_decay=0.9
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[0.1, -0.2], [0.3, 0.4]]), config
  )
  state, squares = core.init(jax.random.key(0)), []
  for i in range(3):
    state, metrics = jax.jit(core.step)(state, make_batch(i, 8))
    gradient = np.mean(state.critic_params["c"], axis=0)
    squares.append(np.mean(gradient**2))
    # Weights 0.9^age, which add up to one once divided by their sum.
    weights = 0.9 ** np.arange(i + 1)[::-1]
    np.testing.assert_allclose(
      metrics["action_gradient_size"],
      np.sqrt(np.average(squares, weights=weights)),
      rtol=1e-5,
    )
  assert squares[0] != squares[1]


def test_critic_loss_on_paper(config):
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


def test_target_actions_come_from_the_next_observation(config):
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


def test_target_actions_come_from_the_newest_denoiser(config):
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
    "denoiser_params": jnp.full((3, 1), -0.5),
    "target_denoiser_params": jnp.full((3, 1), 0.6),
  }
  got = _target_square(networks, config, fields)
  np.testing.assert_allclose(got, 0.5**2, rtol=1e-4)


def test_target_actions_are_the_best_of_their_candidates(config):
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
  values = networks.criticize(
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
