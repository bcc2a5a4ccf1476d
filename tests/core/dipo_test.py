"""DIPO, against closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm.methods import dipo


def move(gradient, action, **kwargs):
  config = acme_qsm.DIPOConfig(**kwargs)
  return np.asarray(
    dipo.move_actions(config, gradient, jnp.asarray(action, jnp.float32))
  )


def test_each_move_is_of_adam():
  # Adam's steps by a constant gradient are of its rate, whatever the size.
  action = [[0.0, 0.1], [-0.5, 0.5]]
  direction = np.array([1.0, -1.0])
  for size in (1e-3, 1e3):
    moved = move(
      lambda a, size=size: jnp.broadcast_to(size * direction, a.shape),
      action,
      num_action_moves=5,
      action_learning_rate=0.02,
    )
    np.testing.assert_allclose(moved, action + 0.1 * direction, atol=1e-5)


def test_actions_stay_in_the_box():
  moved = move(
    jnp.ones_like,
    [[0.99], [0.0]],
    num_action_moves=8,
    action_learning_rate=0.05,
  )
  np.testing.assert_allclose(moved, [[1.0], [0.4]], atol=1e-5)


def test_actions_find_the_maximum():
  moved = move(
    lambda a: 0.3 - a,
    np.linspace(-1, 1, 9)[:, None],
    num_action_moves=300,
    action_learning_rate=0.03,
  )
  np.testing.assert_allclose(moved, 0.3, atol=0.02)


def test_the_denoiser_learns_the_moved_actions(
  make_constant_networks, make_step, make_flat_batch
):
  # Of constant predictions 0.3 per step: 2 (0.3 - noise), a third of the time
  # each; where actions are moved to is in the noisy action alone, so what is
  # moved is looked at by the metric.
  size = 8_000
  config = acme_qsm.DIPOConfig(
    num_denoising_steps=3,
    critic_learning_rate=1e-12,
    num_action_moves=4,
    action_learning_rate=0.05,
  )
  networks = make_constant_networks([[2.0], [2.0]], [0.0, 1.0])
  gradient, metrics, _ = make_step(networks, config)(make_flat_batch(size))
  assert float(metrics["moved_distance"]) == pytest.approx(0.2, rel=1e-3)
  tolerance = 5 * 2 * np.sqrt((1 + 0.09) / 3 / size)
  np.testing.assert_allclose(gradient[:, 0], 0.2, atol=tolerance)


def test_moved_actions_go_on_from_where_they_are_kept(
  make_constant_networks, make_flat_batch
):
  # The critics' gradient is -2 everywhere: each call moves by four steps of
  # -0.05 from the extras, not from the executed action.
  config = acme_qsm.DIPOConfig(
    num_denoising_steps=3,
    critic_learning_rate=1e-12,
    num_action_moves=4,
    action_learning_rate=0.05,
    keep_moved_actions=True,
  )
  core = acme_qsm.make_learner_core(
    make_constant_networks([[-2.0], [-2.0]], [0.0, 1.0]), config
  )
  state = core.init(jax.random.key(0))
  batch = make_flat_batch(4, action=0.9)
  # Without extras, as from Reverb, from the executed one: to 0.7.
  _, metrics = jax.jit(core.step)(state, batch)
  assert float(metrics["moved_distance"]) == pytest.approx(0.2, rel=1e-3)
  assert core.update_extras is not None
  batch = batch._replace(
    extras={"moved_action": jnp.full((4, 1), 0.5), "other": jnp.zeros(4)}
  )
  for expected in (0.3, 0.1, -0.1):
    batch = core.update_extras(state, batch)
    moved_action = batch.extras["moved_action"]
    np.testing.assert_allclose(moved_action, expected, atol=1e-5)
    assert set(batch.extras) == {"moved_action", "other"}
  np.testing.assert_array_equal(batch.action, np.float32(0.9))
  # The denoiser learns those, and the critics the executed ones.
  _, metrics = jax.jit(core.step)(state, batch)
  assert float(metrics["moved_distance"]) == pytest.approx(1.0, rel=1e-3)
  # Q = b - 2 a.
  assert float(metrics["q_value"]) == pytest.approx(0.5 - 1.8, abs=1e-4)


def test_other_extras_than_moved_actions_are_refused(
  make_constant_networks, make_flat_batch
):
  config = acme_qsm.DIPOConfig(num_denoising_steps=3, num_action_moves=2)
  core = acme_qsm.make_learner_core(
    make_constant_networks([[1.0], [1.0]]), config
  )
  state = core.init(jax.random.key(0))
  for given in ({"moved": jnp.zeros((4, 1))}, {"moved_action": jnp.zeros(4)}):
    batch = make_flat_batch(4)._replace(extras=given)
    for function in (core.step, core.update_extras):
      with pytest.raises(ValueError, match=r"actions' shape \(4, 1\), got"):
        jax.eval_shape(function, state, batch)


def test_a_new_action_is_the_first_that_is_moved(make_constant_networks):
  networks = make_constant_networks([[1.0], [1.0]])
  config = acme_qsm.DIPOConfig(num_denoising_steps=3)
  core = acme_qsm.make_learner_core(networks, config)
  params = core.policy_params(core.init(jax.random.key(0)))
  arguments = (params, jax.random.key(1), jnp.zeros((5, 3)))
  policy = acme_qsm.make_policy(networks, config)
  action, extras = policy.apply(*arguments)
  np.testing.assert_array_equal(action, policy(*arguments))
  np.testing.assert_array_equal(action, extras["moved_action"])
  assert policy.extras_spec["moved_action"].shape == action.shape[1:]
  # Nothing where nothing is kept.
  for policy in (
    acme_qsm.make_policy(networks, config, evaluation=True),
    acme_qsm.make_policy(
      networks, dataclasses.replace(config, keep_moved_actions=False)
    ),
  ):
    assert policy.apply(*arguments)[1] == policy.extras_spec == {}


def test_a_stateless_method_keeps_nothing(make_constant_networks):
  networks = make_constant_networks([[1.0], [1.0]])
  for config in (
    acme_qsm.DIPOConfig(num_denoising_steps=3, keep_moved_actions=False),
    acme_qsm.QSMConfig(num_denoising_steps=3),
  ):
    core = acme_qsm.make_learner_core(networks, config)
    assert core.update_extras is None
