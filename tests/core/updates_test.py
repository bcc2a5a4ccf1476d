"""Updates of parameters: schedules, delays, and the pieces by themselves."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import acme_qsm
from acme_qsm import methods
from acme_qsm.core import actor_critic
from acme_qsm.core import critics
from acme_qsm.core import sampling
from acme_qsm.core import training
from acme_qsm.core import updates
from acme_qsm.methods import qsm


def learning_rates(config, num_updates):
  """What Adam multiplies its direction by: one, as the slope is constant."""
  optimizer = updates.make_policy_optimizer(config)
  params = jnp.zeros(())
  state, rates = optimizer.init(params), []
  for _ in range(num_updates):
    update, state = optimizer.update(jnp.ones(()), state, params)
    rates.append(-float(update))
  return np.array(rates)


def test_a_constant_learning_rate(config):
  config = dataclasses.replace(config, policy_learning_rate=1e-2)
  np.testing.assert_allclose(learning_rates(config, 5), 1e-2, rtol=1e-4)


def test_a_linear_learning_rate(config):
  config = dataclasses.replace(
    config,
    policy_learning_rate=1e-2,
    policy_learning_rate_schedule="linear",
    policy_learning_rate_end=1e-3,
    policy_learning_rate_begin=2,
    policy_learning_rate_steps=3,
  )
  expected = [1e-2, 1e-2, 1e-2, 7e-3, 4e-3, 1e-3, 1e-3]
  np.testing.assert_allclose(learning_rates(config, 7), expected, rtol=1e-4)


def test_a_cosine_learning_rate(config):
  config = dataclasses.replace(
    config,
    policy_learning_rate=1e-2,
    policy_learning_rate_schedule="cosine",
    policy_learning_rate_end=2e-3,
    policy_learning_rate_begin=1,
    policy_learning_rate_steps=4,
  )
  falls = 2e-3 + 8e-3 * (1 + np.cos(np.pi * np.arange(5) / 4)) / 2
  expected = [1e-2, *falls, 2e-3]
  np.testing.assert_allclose(learning_rates(config, 7), expected, rtol=1e-4)


def test_a_gradient_step_by_itself():
  # Down (x - 3)^2 at x = 1, by plain gradient descent.
  update = updates.gradient_step(
    lambda x, goal: ((x - goal) ** 2, "more"),
    optax.sgd(0.1),
    jnp.asarray(1.0),
    optax.sgd(0.1).init(jnp.asarray(1.0)),
    3.0,
  )
  np.testing.assert_allclose(update.params, 1.4, rtol=1e-6)
  assert (float(update.loss), update.aux) == (4.0, "more")


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 1 - 1e-7, 1 - 1e-8])
def test_a_running_mean_is_not_biased(decay):
  # Of a constant it is that; of others, numpy's in double precision.
  values = np.concatenate([np.ones(5), np.linspace(-1.0, 4.0, 20)])
  move = jax.jit(
    lambda mean, value, i: (
      *updates.move_running_mean(mean, value, decay, i),
      updates.newest_share(decay, i),
    )
  )
  mean, exact = np.float32(0), 0.0
  for i, value in enumerate(values):
    mean, found, share = move(mean, np.float32(value), i)
    weights = decay ** np.arange(i, -1.0, -1.0)
    exact = np.sum(weights * values[: i + 1]) / np.sum(weights)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(share, 1 / np.sum(weights), rtol=1e-5)
  # After many updates too.
  before = -np.expm1(1e6 * np.log(decay)) if decay else 1.0
  _, found, _ = move(np.float32(before), np.float32(1), 1_000_000)
  np.testing.assert_allclose(found, 1.0, rtol=1e-5)


def test_a_delayed_policy_moves_at_every_third_step(
  networks, config, make_batch
):
  config = dataclasses.replace(config, policy_update_period=3)
  core = acme_qsm.make_learner_core(networks, config)
  step = jax.jit(core.step)
  state, moved, metrics = core.init(jax.random.key(0)), [], {}
  for i in range(7):
    before, last_metrics = state, metrics
    state, metrics = step(state, make_batch(i, 8))

    def moves(name, before=before, after=state):
      return any(
        jax.tree.leaves(
          jax.tree.map(
            lambda x, y: bool(np.any(x != y)),
            getattr(before, name),
            getattr(after, name),
          )
        )
      )

    moved.append(moves("policy_params"))
    assert moves("critic_params")
    for name in (
      "target_policy_params",
      "target_critic_params",
      "method_state",
    ):
      assert moves(name) == moved[-1], name
    if not moved[-1]:
      # What is shown is what there was last.
      assert metrics["denoiser_loss"] == last_metrics["denoiser_loss"]
    assert state.steps == i + 1
  assert moved == [True, False, False, True, False, False, True]


def test_a_delayed_step_scans_and_counts_its_updates(
  networks, config, make_batch
):
  # The running mean's correction counts updates, not steps: with a constant
  # critic it is the gradient's size from the first update on.
  config = dataclasses.replace(
    config,
    policy_update_period=2,
    critic_learning_rate=1e-12,
    action_gradient_decay=0.9,
  )
  core = acme_qsm.make_learner_core(networks, config)
  batch = make_batch(0, 8)
  batches = jax.tree.map(lambda x: jnp.stack([x] * 6), batch)
  _, metrics = jax.jit(lambda s, b: jax.lax.scan(core.step, s, b))(
    core.init(jax.random.key(0)), batches
  )
  sizes = np.asarray(metrics["action_gradient_size"])
  np.testing.assert_array_equal(sizes[0::2], sizes[1::2])
  # Noisy actions differ, and the gradient with them, but by little.
  np.testing.assert_allclose(sizes, sizes[0], rtol=0.3)


def test_networks_of_another_number_of_denoising_steps_are_refused(
  networks, config
):
  other = dataclasses.replace(config, num_denoising_steps=20)
  for make in (acme_qsm.make_learner_core, acme_qsm.make_policy):
    with pytest.raises(
      ValueError, match=r"made for 3 .*num_denoising_steps is 20"
    ):
      make(networks, other)


def test_own_networks_take_any_number_of_denoising_steps(
  make_constant_networks, config
):
  assert make_constant_networks([[1.0]]).num_denoising_steps is None
  acme_qsm.make_policy(
    make_constant_networks([[1.0]]),
    dataclasses.replace(config, num_denoising_steps=20),
  )


def make_core_with_metric(networks, config, period, of_critics, **metric):
  """Q-score matching that reports one more metric: of either loss."""
  config = dataclasses.replace(config, policy_update_period=period)
  policy_loss = qsm.make_policy_loss(networks, config)
  critic_loss = critics.make_critic_loss(networks, config)
  sampler = sampling.make_sampler(networks, config)

  def more_of_policy(*args):
    loss, (method_state, metrics) = policy_loss(*args)
    return loss, (method_state, {**metrics, **metric})

  def more_of_critics(*args):
    loss, metrics = critic_loss(*args)
    return loss, {**metrics, **metric}

  return actor_critic.make_learner_core(
    networks,
    config,
    policy_loss=policy_loss if of_critics else more_of_policy,
    sampler=sampler,
    init_method_state=lambda: qsm.QSMState(jnp.zeros(())),
    update_critics=training.make_critic_update(
      networks,
      config,
      sampler=sampler,
      optimizer=optax.adam(1e-3),
      critic_loss=more_of_critics if of_critics else None,
    ),
  )


@pytest.mark.parametrize("period", [1, 2])
@pytest.mark.parametrize("of_critics", [False, True])
def test_numbers_of_any_type_are_metrics(
  networks, config, make_batch, period, of_critics
):
  numbers = {
    "python": 3,
    "int32": jnp.int32(3),
    "bool": jnp.array(True),
    "float64": np.float64(0.5),
  }
  core = make_core_with_metric(networks, config, period, of_critics, **numbers)
  _, metrics = jax.jit(core.step)(
    core.init(jax.random.key(0)), make_batch(0, 8)
  )
  for metric in metrics.values():
    assert (metric.shape, metric.dtype) == ((), np.float32)
  assert {name: float(metrics[name]) for name in numbers} == numbers


@pytest.mark.parametrize("period", [1, 2])
@pytest.mark.parametrize("of_critics", [False, True])
def test_a_metric_that_is_no_scalar_is_refused(
  networks, config, make_batch, period, of_critics
):
  core = make_core_with_metric(
    networks, config, period, of_critics, sizes=jnp.ones((8,))
  )
  with pytest.raises(ValueError, match=r"'sizes' of shape \(8,\).* scalar"):
    jax.eval_shape(core.step, core.init(jax.random.key(0)), make_batch(0, 8))


def test_what_a_delayed_policy_measures_is_asked_of_it(networks, config):
  # Of networks whose observations' shape is known.
  config = dataclasses.replace(config, policy_update_period=2)
  core = acme_qsm.make_learner_core(networks, config)
  state = core.init(jax.random.key(0))
  assert set(state.policy_metrics) == {"denoiser_loss", "action_gradient_size"}
  unknown = dataclasses.replace(networks, observation_shape=None)
  core = acme_qsm.make_learner_core(unknown, config)
  with pytest.raises(ValueError, match=r"period above 1 needs .*_shape"):
    core.init(jax.random.key(0))


def test_weights_are_projected_after_each_step():
  optimizer = updates.then_project(
    optax.adam(0.1),
    lambda params: jax.tree.map(lambda x: x / jnp.linalg.norm(x), params),
  )
  params = {"w": jnp.array([1.0, 0.0]), "v": jnp.array([0.0, 0.0, 1.0])}

  def loss(params):
    return jnp.sum(params["w"]) + jnp.sum(params["v"]), None

  state = optimizer.init(params)
  for _ in range(100):
    params, state, _, _ = updates.gradient_step(loss, optimizer, params, state)
    for leaf in jax.tree.leaves(params):
      np.testing.assert_allclose(jnp.linalg.norm(leaf), 1.0, rtol=1e-5)
  # The lowest sum on a sphere.
  np.testing.assert_allclose(params["w"], -np.sqrt(1 / 2), atol=0.02)
  np.testing.assert_allclose(params["v"], -np.sqrt(1 / 3), atol=0.02)


def test_a_configuration_of_no_method_is_refused(networks, config):
  class Other(acme_qsm.QSMConfig):
    pass

  with pytest.raises(ValueError, match=r"by Other, but by QSMConfig"):
    acme_qsm.make_learner_core(networks, Other())
  assert methods.find(config) == ("qsm", methods.METHODS["qsm"])


def test_an_actor_is_told_only_what_it_reads(networks, config):
  core = acme_qsm.make_learner_core(networks, config)
  state = core.init(jax.random.key(0))
  acting = core.variables["acting_policy"](state)
  assert acting.policy is state.policy_params
  assert (acting.target_policy, acting.critics) == (None, None)
  evaluating = core.variables["evaluation_policy"](state)
  assert evaluating.target_policy is state.target_policy_params
  assert (evaluating.policy, evaluating.critics) == (None, None)
  # Which suffices, and gives the same actions.
  observation = jnp.ones((4, 3))
  for params, evaluation in ((acting, False), (evaluating, True)):
    policy = acme_qsm.make_policy(networks, config, evaluation)
    np.testing.assert_array_equal(
      policy(params._replace(steps=1), jax.random.key(1), observation),
      policy(
        core.policy_params(state)._replace(steps=1),
        jax.random.key(1),
        observation,
      ),
    )
  config = dataclasses.replace(config, num_action_candidates=2)
  core = acme_qsm.make_learner_core(networks, config)
  assert core.variables["acting_policy"](state).critics is state.critic_params
