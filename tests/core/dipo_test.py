"""DIPO, against closed forms."""

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
  make_constant_networks, first_gradient, make_flat_batch
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
  batch = make_flat_batch(size)
  core = acme_qsm.make_learner_core(networks, config)
  after, metrics = jax.jit(core.step)(core.init(jax.random.key(0)), batch)
  assert float(metrics["moved_distance"]) == pytest.approx(0.2, rel=1e-3)
  tolerance = 5 * 2 * np.sqrt((1 + 0.09) / 3 / size)
  np.testing.assert_allclose(
    first_gradient(after.policy_opt_state)[:, 0], 0.2, atol=tolerance
  )


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
  batch = batch._replace(extras=jnp.full((4, 1), 0.5))
  for expected in (0.3, 0.1, -0.1):
    batch = core.update_extras(state, batch)
    np.testing.assert_allclose(batch.extras, expected, atol=1e-5)
  np.testing.assert_array_equal(batch.action, np.float32(0.9))
  # The denoiser learns those, and the critics the executed ones.
  _, metrics = jax.jit(core.step)(state, batch)
  assert float(metrics["moved_distance"]) == pytest.approx(1.0, rel=1e-3)
  # Q = b - 2 a.
  assert float(metrics["q_value"]) == pytest.approx(0.5 - 1.8, abs=1e-4)


def test_extras_that_a_method_has_no_place_for_are_refused(
  make_constant_networks, make_flat_batch
):
  networks = make_constant_networks([[1.0], [1.0]])
  fields = {"num_denoising_steps": 3, "num_action_moves": 2}

  def step(config, extras):
    core = acme_qsm.make_learner_core(networks, config)
    batch = make_flat_batch(4)._replace(extras=extras)
    return jax.eval_shape(core.step, core.init(jax.random.key(0)), batch)

  extras = jnp.zeros((4, 1))
  for config in (
    acme_qsm.DIPOConfig(keep_moved_actions=False, **fields),
    acme_qsm.QSMConfig(num_denoising_steps=3),
  ):
    for given in (extras, (extras, extras), {"moved": extras}):
      with pytest.raises(ValueError, match=r"extras, for which .*Config as"):
        step(config, given)
    for nothing in ((), None, {}):
      step(config, nothing)
  # A method that keeps an action takes nothing else for one.
  config = acme_qsm.DIPOConfig(**fields)
  step(config, extras)
  for given in ((extras, extras), {"moved": extras}, jnp.zeros((4,))):
    with pytest.raises(ValueError, match=r"actions' shape \(4, 1\), got"):
      step(config, given)


def test_a_stateless_method_keeps_nothing(make_constant_networks):
  networks = make_constant_networks([[1.0], [1.0]])
  for config in (
    acme_qsm.DIPOConfig(num_denoising_steps=3, keep_moved_actions=False),
    acme_qsm.QSMConfig(num_denoising_steps=3),
  ):
    core = acme_qsm.make_learner_core(networks, config)
    assert core.update_extras is None
    assert not config.keeps_extras


@pytest.mark.parametrize(
  ("field", "value"), [("num_action_moves", 0), ("action_learning_rate", 0.0)]
)
def test_invalid_values(field, value):
  with pytest.raises(ValueError, match=rf"DIPOConfig\.{field} must"):
    acme_qsm.DIPOConfig(**{field: value})


def test_the_official_preset():
  config = acme_qsm.methods.METHODS["dipo"].preset("official")
  assert config.num_denoising_steps == 100
  assert config.num_action_moves == 20
  assert not config.acts_by_target(evaluation=True)
