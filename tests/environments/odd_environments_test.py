"""Wrappers, each by itself, around environments that are out of the ordinary.

Those of Acme behave alike where both can: see `wrappers_test.py`.
"""

import dm_env
import numpy as np
import pytest
from dm_env import specs

from acme_qsm.environments import wrappers
from acme_qsm.types import InvalidValueError

ACTIONS = specs.BoundedArray((1,), np.float64, -1.0, 1.0, "torque")


class Scripted(dm_env.Environment):
  """An environment of a few steps that checks its actions.

  Attributes:
    actions: those that it was given.
  """

  def __init__(
    self,
    action=ACTIONS,
    observation=None,
    observe=lambda step: np.zeros(1),
    pay=float,
    length=3,
  ):
    """What is seen and paid is made of the episode's step."""
    self._action = action
    if observation is None:
      observation = specs.Array((1,), np.float64, "place")
    self._observation = observation
    self._observe = observe
    self._pay = pay
    self._length = length
    self._step = None
    self.actions = []

  def reset(self):
    self._step = 0
    return dm_env.restart(self._observe(0))

  def step(self, action):
    if self._step is None or self._step == self._length:
      return self.reset()
    if isinstance(self._action, dict):
      for name, spec in self._action.items():
        spec.validate(action[name])
    else:
      self._action.validate(action)
    self.actions.append(action)
    self._step += 1
    make = (
      dm_env.truncation if self._step == self._length else dm_env.transition
    )
    return make(self._pay(self._step), self._observe(self._step))

  def observation_spec(self):
    return self._observation

  def action_spec(self):
    return self._action


def test_end_points_are_within_bounds_of_float64():
  # Half of such bounds are not, rounded to float32.
  random = np.random.default_rng(0)
  for _ in range(200):
    minimum = random.uniform(-2.0, 1.0, 3)
    maximum = minimum + random.uniform(0.01, 3.0, 3)
    inside = Scripted(specs.BoundedArray((3,), np.float64, minimum, maximum))
    environment = wrappers.CanonicalActions(inside)
    environment.reset()
    # It raises beyond its bounds, and for another type.
    environment.step(-np.ones(3, np.float32))
    environment.step(np.ones(3, np.float32))
    np.testing.assert_allclose(inside.actions[0], minimum, rtol=0, atol=1e-6)
    np.testing.assert_allclose(inside.actions[1], maximum, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
  "wrap",
  [
    lambda inside: wrappers.CanonicalActions(inside),
    lambda inside: wrappers.SinglePrecision(wrappers.CanonicalActions(inside)),
    lambda inside: wrappers.SinglePrecision(
      wrappers.ActionRepeat(wrappers.CanonicalActions(inside), 2)
    ),
  ],
)
def test_actions_are_scaled_in_their_own_precision(wrap, dtype):
  """As they were before environments were given their spec's type."""
  spec = specs.BoundedArray((2,), np.float64, [-0.3, 0.1], [0.7, 2.3])
  inside = Scripted(spec)
  environment = wrap(inside)
  environment.reset()
  action = np.array([0.123456789, -0.987654321], dtype)
  environment.step(action)
  scaled = (action + dtype(1.0)) * dtype(0.5)
  scaled = (scaled * (spec.maximum - spec.minimum)).astype(dtype)
  scaled = (scaled + spec.minimum).astype(dtype)
  np.testing.assert_array_equal(inside.actions[0], scaled)
  assert inside.actions[0].dtype == np.float64


@pytest.mark.parametrize(
  ("spec", "action"),
  [
    (ACTIONS, np.float32([0.5])),
    (ACTIONS, [0.5]),
    (specs.Array((2, 1), np.float64), np.float32([[0.5], [0.1]])),
    (specs.DiscreteArray(3, np.int64), np.int32(2)),
    (specs.DiscreteArray(3, np.int32), np.int32(2)),
    (
      {"arm": ACTIONS, "gear": specs.DiscreteArray(3, np.int64)},
      {"arm": np.float32([0.5]), "gear": np.int32(2)},
    ),
  ],
)
def test_single_precision_gives_actions_as_the_spec_inside_says(spec, action):
  inside = Scripted(spec)
  environment = wrappers.SinglePrecision(inside)
  environment.reset()
  # It raises for another type.
  environment.step(action)
  assert len(inside.actions) == 1


def bounds(minimum, maximum, dtype=np.float64):
  return specs.BoundedArray((2,), dtype, minimum, maximum)


@pytest.mark.parametrize(
  ("wrap", "spec", "message"),
  [
    (wrappers.CanonicalActions, bounds(0.0, np.inf), "infinite.*inf.*adapt"),
    (wrappers.CanonicalActions, bounds(-np.inf, np.inf), "infinite bounds"),
    (wrappers.CanonicalActions, bounds(np.nan, 1.0), "bounds.*nan"),
    (wrappers.CanonicalActions, bounds(1.0, 1.0), "minimum < maximum"),
    (wrappers.CanonicalActions, bounds(0, 3, np.int32), "continuous.*int32"),
    (wrappers.CanonicalActions, specs.DiscreteArray(3), "continuous.*discrete"),
    (wrappers.CanonicalActions, {"arm": ACTIONS}, "one bounded array"),
    # Not [-1, 1], half of which is out of bounds.
    (wrappers.UnitBounds, bounds(0.0, np.inf), "both bounds or none.*adapt"),
    (wrappers.UnitBounds, bounds([-1, -1e10], [1, 5]), "both bounds or none"),
    (wrappers.UnitBounds, specs.DiscreteArray(3), "continuous.*discrete"),
    (wrappers.UnitBounds, {"arm": ACTIONS}, "one bounded array"),
  ],
)
def test_bounds_that_cannot_be_used(wrap, spec, message):
  with pytest.raises(ValueError, match=f"^actions must .*{message}") as raised:
    wrap(Scripted(spec)).action_spec()
  assert "\n" not in str(raised.value)


PLACE = specs.Array((2,), np.float64, "place")


@pytest.mark.parametrize(
  ("spec", "got"),
  [
    (PLACE, "got Array"),
    ([PLACE], r"got \[Array"),
    ({"arm": {"elbow": PLACE}}, "got {'arm': {'elbow'"),
    ({"arm": (PLACE,)}, "got {'arm': "),
    ({}, "got {}"),
  ],
)
def test_what_concatenation_needs(spec, got):
  message = f"needs .* a dictionary of arrays, {got}.*FloatObservations.*adapt"
  with pytest.raises(ValueError, match=message) as raised:
    wrappers.ConcatenatedObservations(Scripted(observation=spec))
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
  ("observation", "message"),
  [
    (
      {"b": np.zeros(2)},
      r"^observation is a dictionary of 'b' at step 2 of the episode; the spec "
      r"says a dictionary of 'a', 'b'\.$",
    ),
    (np.zeros(4), "^observation is of ndarray at step 2"),
    (None, "^observation is None at step 2"),
  ],
)
def test_a_field_that_is_missing_later(observation, message):
  good = {"a": np.zeros(2), "b": np.zeros(2)}
  environment = wrappers.ConcatenatedObservations(
    Scripted(
      observation={"a": PLACE, "b": PLACE},
      observe=lambda step: observation if step == 2 else good,
    )
  )
  for _ in range(2):
    environment.reset()
    environment.step(np.zeros(1))
    with pytest.raises(InvalidValueError, match=message):
      environment.step(np.zeros(1))


@pytest.mark.parametrize("num_repeats", [1, 2, 3, 5])
def test_a_step_after_the_last_begins_an_episode(num_repeats):
  environment = wrappers.ActionRepeat(Scripted(), num_repeats)
  # As before the first.
  for _ in range(3):
    timestep = environment.step(np.zeros(1))
    assert timestep.first()
    assert timestep.reward is timestep.discount is None
    rewards = []
    while not timestep.last():
      timestep = environment.step(np.zeros(1))
      rewards.append(timestep.reward)
    expected = {1: [1, 2, 3], 2: [1 + 2, 3]}.get(num_repeats, [1 + 2 + 3])
    assert rewards == expected


def test_rewards_in_a_buffer_are_summed():
  buffer = np.zeros(1)

  def pay(step):
    buffer[:] = 10.0**step
    return buffer

  environment = wrappers.ActionRepeat(Scripted(pay=pay, length=9), 3)
  environment.reset()
  first, second = (environment.step(np.zeros(1)).reward for _ in range(2))
  assert (first, second) == (1110.0, 1110000.0)


def test_a_reward_of_none_is_left_to_whoever_takes_it():
  environment = wrappers.ActionRepeat(
    Scripted(pay=lambda step: None if step == 2 else 1.0), 3
  )
  environment.reset()
  timestep = environment.step(np.zeros(1))
  assert timestep.mid()
  assert timestep.reward is None


@pytest.mark.parametrize(
  ("value", "dtype"),
  [
    (1e38, np.float32),
    (-np.inf, np.float32),
    (np.nan, np.float32),
    (1e39, np.float64),
    (-1e300, np.float64),
    (2**31 - 1, np.int32),
    (2**31, np.int64),
  ],
)
def test_single_precision_keeps_what_it_cannot_hold(recwarn, value, dtype):
  environment = wrappers.SinglePrecision(
    Scripted(pay=lambda step: value, observe=lambda step: np.array([value]))
  )
  assert environment.reset().observation.dtype == dtype
  timestep = environment.step(np.zeros(1))
  assert timestep.reward.dtype == timestep.observation.dtype == dtype
  np.testing.assert_array_equal(timestep.reward, np.dtype(dtype).type(value))
  assert not recwarn.list


def test_single_precision_of_lists_and_tuples():
  spec = {"arm": [PLACE, (specs.Array((), np.int64),)]}
  observation = {"arm": [np.ones(2), (np.int64(3),)]}
  environment = wrappers.SinglePrecision(
    Scripted(observation=spec, observe=lambda step: observation)
  )
  first, second = environment.reset(), environment.step(np.zeros(1))
  found = environment.observation_spec()
  for timestep in (first, second):
    arm, (count,) = timestep.observation["arm"]
    found["arm"][0].validate(arm)
    found["arm"][1][0].validate(count)
  assert (arm.dtype, count.dtype) == (np.float32, np.int32)


def test_single_precision_of_an_array_that_is_given_as_a_list():
  environment = wrappers.SinglePrecision(Scripted(observe=lambda step: [0.5]))
  observation = environment.reset().observation
  environment.observation_spec().validate(observation)
  assert observation.dtype == np.float32
