"""Categorical critics' atoms, and whether returns fit between them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm.core import atoms as atoms_lib


@pytest.fixture
def make_rewards(environment_spec):
  """Makes a spec of an environment whose rewards have these bounds."""

  def make(minimum, maximum):
    return acme_qsm.EnvironmentSpec(
      environment_spec.observations,
      environment_spec.actions,
      acme_qsm.ArraySpec((), np.float32, minimum, maximum),
    )

  return make


def with_atoms(config, minimum, maximum, **fields):
  return dataclasses.replace(
    config,
    **{
      "critic_head": "categorical",
      "min_value": minimum,
      "max_value": maximum,
      **fields,
    },
  )


@pytest.mark.parametrize(
  ("rewards", "atoms", "fields", "field", "bound"),
  [
    ((0.0, 2.0), (-10.0, 110.0), {}, "max_value", 200),
    ((0.0, 1.0), (-10.0, 99.0), {}, "max_value", 100),
    ((0.0, 1.0), (1.0, 100.0), {}, "min_value", 0),
    ((-1.0, 0.0), (-10.0, 10.0), {}, "min_value", -100),
    # An episode may end at once: its return is 0.
    ((-2.0, -1.0), (-200.0, -1.0), {}, "max_value", 0),
    ((0.0, 1.0), (0.0, 100.0), {"reward_scale": 2.0}, "max_value", 200),
    ((0.0, 1.0), (0.0, 1.5), {"discount": 0.5}, "max_value", 2),
    ((-1.0, np.inf), (0.0, 1.0), {}, "min_value", -100),
    ((-np.inf, 1.0), (0.0, 1.0), {}, "max_value", 100),
    ((0.0, np.array([1.0, 3.0])), (0.0, 100.0), {}, "max_value", 300),
    # These fit: 1 / (1 - 0.9) is a bit more than 10 in floating point.
    ((0.0, 1.0), (0.0, 100.0), {}, None, None),
    ((-1.0, 1.0), (-100.0, 100.0), {}, None, None),
    ((0.0, 1.0), (0.0, 10.0), {"discount": 0.9}, None, None),
    ((0.0, 1.0), (0.0, 10.0), {"reward_scale": 0.1}, None, None),
    # Unbounded on a side; without a discount; other heads; no bounds stated.
    ((-np.inf, np.inf), (-1.0, 1.0), {}, None, None),
    ((0.0, 1.0), (0.0, 1.0), {"discount": 1.0}, None, None),
    ((0.0, 2.0), (0.0, 1.0), {"critic_head": "scalar"}, None, None),
    ((0.0, 2.0), (0.0, 1.0), {"critic_head": "quantile"}, None, None),
    ((None, None), (0.0, 1.0), {}, None, None),
  ],
)
def test_atoms_must_hold_the_returns(
  config, make_rewards, rewards, atoms, fields, field, bound
):
  config = with_atoms(config, *atoms, **fields)
  spec = make_rewards(*rewards)
  if field is None:
    acme_qsm.make_networks(spec, config)
    return
  most = "most" if field == "min_value" else "least"
  with pytest.raises(
    ValueError,
    match=rf"^QSMConfig\.{field} must be at {most} {bound} for .* got",
  ) as raised:
    acme_qsm.make_networks(spec, config)
  # And what that number is made of.
  for name in ("critic_head", "reward_scale", "discount"):
    assert f"{name}=" in str(raised.value)


def gaussian_with_atoms(maximum, **fields):
  return acme_qsm.GaussianConfig(
    policy_hidden_sizes=(4,),
    critic_hidden_sizes=(4,),
    critic_head="categorical",
    min_value=0.0,
    max_value=maximum,
    **{"entropy_temperature": 1.0, "n_step": 1, **fields},
  )


@pytest.mark.parametrize(
  ("size", "fields", "most"),
  [
    # (1 + 0.99 * 6 log 2) / (1 - 0.99).
    (6, {}, 511.733),
    (1, {}, 168.622),
    # Of the last of three actions alone: 1 / (1 - 0.99) and 0.99^3 6 log 2 / (1
    # - 0.99^3).
    (6, {"n_step": 3}, 235.866),
    (6, {"entropy_temperature": 0.1}, 141.173),
    # Rewards are scaled, the bonus is not.
    (6, {"reward_scale": 0.1}, 421.733),
    (6, {"discount": 0.5}, 6.15888),
  ],
)
def test_soft_returns_have_the_entropy(make_spec, size, fields, most):
  spec = make_spec(shape=(size,))
  spec = acme_qsm.EnvironmentSpec(
    spec.observations,
    spec.actions,
    acme_qsm.ArraySpec((), np.float32, 0.0, 1.0),
  )
  # That most is the fixed point of a uniform policy's soft value, step by step.
  config = gaussian_with_atoms(0.999 * most, **fields)
  gamma, value = config.discount, 0.0
  bonus = config.entropy_temperature * np.log(2.0**size)
  for _ in range(5_000):
    value = gamma**config.n_step * (value + bonus)
    for k in reversed(range(config.n_step)):
      value += gamma**k * config.reward_scale
  assert value == pytest.approx(most, rel=1e-5)
  with pytest.raises(
    ValueError, match=r"^GaussianConfig\.max_value must be at least .* bonus of"
  ) as raised:
    acme_qsm.make_networks(spec, config)
  assert f"at least {most:.5g}"[:-1] in str(raised.value)
  atoms_lib.require_hold_returns(
    spec, gaussian_with_atoms(1.001 * most, **fields)
  )
  # Without the entropy, or with critics that have no atoms, nothing is new.
  plain = config.reward_scale / (1 - gamma)
  atoms_lib.require_hold_returns(
    spec,
    gaussian_with_atoms(1.001 * plain, entropy_in_target=False, **fields),
  )
  atoms_lib.require_hold_returns(
    spec, dataclasses.replace(config, critic_head="scalar")
  )


def test_a_spec_without_rewards_is_not_checked(environment_spec, config):
  acme_qsm.make_networks(environment_spec, with_atoms(config, 0.0, 0.1))
  atoms_lib.require_hold_returns(
    acme_qsm.EnvironmentSpec(
      environment_spec.observations, environment_spec.actions
    ),
    with_atoms(config, 0.0, 0.1),
  )


def test_the_mass_beyond_the_atoms():
  atoms = jnp.array([0.0, 1.0, 2.0])
  probabilities = jnp.array([[[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]])

  def mass(rewards, discounts):
    return atoms_lib.mass_beyond(
      jnp.log(probabilities), atoms, jnp.array(rewards), jnp.array(discounts)
    )

  # 0.5, 1.5 and 2.5 of the first; the second is at an end, where it fits.
  np.testing.assert_allclose(mass([0.5, 0.0], [1.0, 0.5]), 0.25, rtol=1e-6)
  np.testing.assert_allclose(mass([-0.5, 2.1], [1.0, 0.0]), 0.6, rtol=1e-6)
  np.testing.assert_allclose(mass([0.0, 2.0], [1.0, 0.0]), 0.0, atol=1e-7)


def test_rounding_of_n_step_targets_is_not_beyond_the_atoms():
  # A reward of 1 at each of three steps, and the highest return after them.
  atoms = jnp.linspace(0.0, 100.0, 101)
  logits = jnp.full((2, 1, 101), -1e3).at[:, :, -1].set(0.0)
  discount = np.float32(0.99)
  reward = np.float32(1) + discount + discount * discount
  args = (atoms, jnp.array([reward]), jnp.array([discount**3]))
  for target in ("projection", "hl_gauss"):
    assert atoms_lib.mass_beyond(logits, *args, target) == 0.0
  # But what is more than that is.
  args = (atoms, jnp.array([reward + np.float32(0.01)]), args[2])
  for target in ("projection", "hl_gauss"):
    assert atoms_lib.mass_beyond(logits, *args, target) == 1.0


def test_the_mass_beyond_the_atoms_is_the_chosen_critics():
  atoms = jnp.array([0.0, 1.0, 2.0])
  # The second has the lower mean, 0.8, and is the target of all.
  probabilities = jnp.array([[[0.0, 0.0, 1.0]], [[0.6, 0.0, 0.4]]])

  def mass(reward, target):
    return atoms_lib.mass_beyond(
      jnp.log(probabilities), atoms, jnp.array([reward]), jnp.ones(1), target
    )

  np.testing.assert_allclose(mass(0.5, "projection"), 0.4, rtol=1e-6)
  # Of a smoothed mean, 1.3 or 2.1, all fits or nothing.
  assert mass(0.5, "hl_gauss") == 0.0
  assert mass(1.3, "hl_gauss") == 1.0
