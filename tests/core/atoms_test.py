"""Categorical critics' atoms, and whether returns fit between them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import acme_qsm
from acme_qsm.core import critics


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
  ("rewards", "atoms", "fields", "message"),
  [
    ((0.0, 2.0), (-10.0, 110.0), {}, "max_value must be at least 200"),
    ((0.0, 1.0), (-10.0, 99.0), {}, "max_value must be at least 100"),
    ((0.0, 1.0), (1.0, 100.0), {}, "min_value must be at most 0"),
    ((-1.0, 0.0), (-10.0, 10.0), {}, "min_value must be at most -100"),
    # An episode may end at once: its return is 0.
    ((-2.0, -1.0), (-200.0, -1.0), {}, "max_value must be at least 0"),
    (
      (0.0, 1.0),
      (0.0, 100.0),
      {"reward_scale": 2.0},
      "max_value must be at least 200",
    ),
    ((0.0, 1.0), (0.0, 1.5), {"discount": 0.5}, "max_value must be at least 2"),
    ((-1.0, np.inf), (0.0, 1.0), {}, "min_value must be at most -100"),
    ((-np.inf, 1.0), (0.0, 1.0), {}, "max_value must be at least 100"),
    (
      (0.0, np.array([1.0, 3.0])),
      (0.0, 100.0),
      {},
      "max_value must be at least 300",
    ),
  ],
)
def test_atoms_that_cannot_hold_the_returns_are_refused(
  config, make_rewards, rewards, atoms, fields, message
):
  config = with_atoms(config, *atoms, **fields)
  with pytest.raises(
    ValueError, match=rf"^QSMConfig\.{message} for .* got "
  ) as raised:
    acme_qsm.make_networks(make_rewards(*rewards), config)
  # And what that number is made of.
  for name in ("critic_head", "reward_scale", "discount"):
    assert f"{name}=" in str(raised.value)


@pytest.mark.parametrize(
  ("rewards", "atoms", "fields"),
  [
    ((0.0, 1.0), (0.0, 100.0), {}),
    ((0.0, 2.0), (0.0, 200.0), {}),
    ((-1.0, 1.0), (-100.0, 100.0), {}),
    # 1 / (1 - 0.9) is a bit more than 10 in floating point.
    ((0.0, 1.0), (0.0, 10.0), {"discount": 0.9}),
    ((0.0, 1.0), (0.0, 10.0), {"reward_scale": 0.1}),
    # Unbounded on a side; without a discount; other heads; no bounds stated.
    ((-np.inf, np.inf), (-1.0, 1.0), {}),
    ((0.0, 1.0), (0.0, 1.0), {"discount": 1.0}),
    ((0.0, 2.0), (0.0, 1.0), {"critic_head": "scalar"}),
    ((0.0, 2.0), (0.0, 1.0), {"critic_head": "quantile"}),
    ((None, None), (0.0, 1.0), {}),
  ],
)
def test_what_fits_or_has_no_known_bound_is_taken(
  config, make_rewards, rewards, atoms, fields
):
  acme_qsm.make_networks(
    make_rewards(*rewards), with_atoms(config, *atoms, **fields)
  )


def test_a_spec_without_rewards_is_not_checked(environment_spec, config):
  acme_qsm.make_networks(environment_spec, with_atoms(config, 0.0, 0.1))
  critics.require_atoms_hold_returns(
    acme_qsm.EnvironmentSpec(
      environment_spec.observations, environment_spec.actions
    ),
    with_atoms(config, 0.0, 0.1),
  )


def test_the_mass_beyond_the_atoms():
  atoms = jnp.array([0.0, 1.0, 2.0])
  probabilities = jnp.array([[[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]])

  def mass(rewards, discounts):
    return critics.mass_beyond_atoms(
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
    assert critics.mass_beyond_atoms(logits, *args, target) == 0.0
  # But what is more than that is.
  args = (atoms, jnp.array([reward + np.float32(0.01)]), args[2])
  for target in ("projection", "hl_gauss"):
    assert critics.mass_beyond_atoms(logits, *args, target) == 1.0


def test_the_mass_beyond_the_atoms_is_the_chosen_critics():
  atoms = jnp.array([0.0, 1.0, 2.0])
  # The second has the lower mean, 0.8, and is the target of all.
  probabilities = jnp.array([[[0.0, 0.0, 1.0]], [[0.6, 0.0, 0.4]]])

  def mass(reward, target):
    return critics.mass_beyond_atoms(
      jnp.log(probabilities), atoms, jnp.array([reward]), jnp.ones(1), target
    )

  np.testing.assert_allclose(mass(0.5, "projection"), 0.4, rtol=1e-6)
  # Of a smoothed mean, 1.3 or 2.1, all fits or nothing.
  assert mass(0.5, "hl_gauss") == 0.0
  assert mass(1.3, "hl_gauss") == 1.0
