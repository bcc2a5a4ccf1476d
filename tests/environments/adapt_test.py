"""Any environment in the form that agents take, or what is wrong with it."""

import collections
import functools
from typing import Any

import numpy as np
import pytest
from dm_env import specs

from acme_qsm import environments
from acme_qsm.environments import wrappers
from acme_qsm.experiments import time_steps
from acme_qsm.specs import make_environment_spec
from acme_qsm.specs import validate_environment_spec
from acme_qsm.types import InvalidValueError
from tests.environments.scripted import ACTIONS
from tests.environments.scripted import REWARDS
from tests.environments.scripted import Scripted

# Discounts in an array of one.
Strict = functools.partial(
  Scripted,
  discount=lambda step: np.array([1.0]),
  discounts=specs.BoundedArray((1,), np.float64, 0.0, 1.0),
)
Pair = collections.namedtuple("Pair", ("left", "right"))


@pytest.mark.parametrize(
  ("spec", "observe", "expected"),
  [
    (specs.Array((), np.float64), lambda t: 2.5 + t, [2.5]),
    (specs.Array((), np.float32), lambda t: np.float32(2.5), [2.5]),
    (specs.DiscreteArray(5), lambda t: 3, [3]),
    (specs.Array((), np.int64), lambda t: np.int64(-7), [-7]),
    (specs.Array((), bool), lambda t: True, [1]),
    (
      specs.BoundedArray((2, 2), np.uint8, 0, 255),
      lambda t: np.array([[0, 255], [7, 8]], np.uint8),
      [0, 255, 7, 8],
    ),
    (specs.Array((2,), np.float16), lambda t: np.float16([0.5, 2]), [0.5, 2]),
    (specs.Array((2,), np.float64), lambda t: [0.5, 2], [0.5, 2]),
    # Rounded: 2^24 + 1 has no float32 of its own.
    (specs.Array((), np.int64), lambda t: 2**24 + 1, [2**24]),
    (
      {
        "b": [specs.Array((), np.int32), (specs.Array((2,), np.float64),)],
        "a": {"z": specs.Array((), bool), "y": specs.Array((1, 2), np.float32)},
        "c": specs.Array((0,), np.float32),
      },
      lambda t: {
        "c": np.zeros(0, np.float32),
        "a": {"y": np.float32([[1, 2]]), "z": np.bool_(True)},
        "b": [4, (np.array([5.0, 6.0]),)],
      },
      [1, 2, 1, 4, 5, 6],
    ),
    (
      Pair(specs.Array((), np.float64), specs.Array((), np.float64)),
      lambda t: Pair(1.0, 2.0),
      [1, 2],
    ),
    (
      collections.OrderedDict(b=specs.Array((), int), a=specs.Array((), int)),
      lambda t: {"a": 1, "b": 2},
      [1, 2],
    ),
    (
      {1: specs.Array((), float), "a": specs.Array((), float)},
      lambda t: {"a": 2.0, 1: 1.0},
      [1, 2],
    ),
  ],
)
def test_observations_become_one_vector(spec, observe, expected):
  environment = environments.adapt(Strict(spec, observe))
  found = environment.observation_spec()
  assert (found.shape, found.dtype) == ((len(expected),), np.float32)
  validate_environment_spec(make_environment_spec(environment))
  timestep = environment.reset()
  for _ in range(2):
    observation = timestep.observation
    found.validate(observation)
    timestep = environment.step(np.zeros(2, np.float32))
  np.testing.assert_array_equal(environment.reset().observation, expected)


def test_observations_can_keep_their_shapes():
  spec = {
    "picture": specs.Array((2, 2), np.uint8, "picture"),
    "arm": (specs.Array((), np.float64), specs.Array((3,), bool)),
    "legs": [specs.Array((2,), np.int64)],
  }
  observation = {
    "picture": np.array([[1, 2], [3, 4]], np.uint8),
    "arm": (0.5, np.array([True, False, True])),
    "legs": [np.array([5, 6])],
  }
  environment = environments.adapt(
    Strict(spec, lambda step: observation), flatten=False
  )
  found: Any = environment.observation_spec()
  for timestep in (environment.reset(), environment.step(np.zeros(2))):
    given = timestep.observation
    assert type(given["arm"]) is type(found["arm"]) is tuple
    for leaf, value, before in (
      (found["picture"], given["picture"], observation["picture"]),
      (found["arm"][0], given["arm"][0], observation["arm"][0]),
      (found["arm"][1], given["arm"][1], observation["arm"][1]),
      (found["legs"][0], given["legs"][0], observation["legs"][0]),
    ):
      leaf.validate(value)
      assert value.dtype == np.float32
      np.testing.assert_array_equal(value, before)
  # One array is what networks of one's own take.
  picture = environments.adapt(
    Strict(spec["picture"], lambda step: observation["picture"]), flatten=False
  )
  validate_environment_spec(
    make_environment_spec(picture), flat_observation=False
  )


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (1, 2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
  ("minimum", "maximum"),
  [
    (-1.0, 1.0),
    (0.1, 0.3),
    (-0.7, 1.1),
    (0.0, 1e-30),
    (-1e30, 1e30),
    (1e6, 1e6 + 1.0),
  ],
)
def test_actions_reach_all_that_the_environment_takes(
  shape, dtype, minimum, maximum
):
  spec = specs.BoundedArray(shape, dtype, minimum, maximum)
  inside = Strict(action=spec)
  environment = environments.adapt(inside)
  outside = environment.action_spec()
  size = int(np.prod(shape))
  assert (outside.shape, outside.dtype) == ((size,), np.float32)
  np.testing.assert_array_equal(outside.minimum, -np.ones(size))
  np.testing.assert_array_equal(outside.maximum, np.ones(size))
  environment.reset()
  # It raises for another type or shape, and for what is out of bounds.
  for value in (-1.0, 1.0, -3.0, 3.0, 0.0, -0.9999999, 0.9999999):
    environment.step(np.full(size, value, np.float32))
  least, greatest, low, high, middle = inside.actions[:5]
  np.testing.assert_array_equal(least, np.full(shape, spec.minimum))
  np.testing.assert_array_equal(low, least)
  np.testing.assert_allclose(greatest, np.full(shape, spec.maximum), 1e-6)
  np.testing.assert_array_equal(high, greatest)
  expected = np.mean([np.float64(spec.minimum), spec.maximum])
  width = np.float64(spec.maximum) - spec.minimum
  # In units of the range, in float64 where that is what the environment takes.
  tolerance = 1e-9 if dtype == np.float64 else 0.1
  np.testing.assert_allclose(
    (middle.astype(np.float64) - expected) / width,
    np.zeros(shape),
    atol=tolerance,
  )


def test_each_component_has_its_own_bounds_and_place():
  spec = specs.BoundedArray((2, 3), np.float64, 0.0, [[1, 2, 3], [4, 5, 6]])
  inside = Strict(action=spec)
  environment = environments.adapt(inside)
  environment.reset()
  environment.step(np.float32([1, 1, 1, -1, 0, 1]))
  np.testing.assert_array_equal(inside.actions[0], [[1, 2, 3], [0, 2.5, 6]])


@pytest.mark.parametrize(
  ("spec", "given", "expected"),
  [
    (specs.Array((2,), np.float64), (-2.0, [3.0, 4.0]), ([-2, -2], [3, 4])),
    (
      specs.BoundedArray((2,), np.float64, [0.0, -np.inf], np.inf),
      (-1.0, 5.0),
      ([0, -1], [5, 5]),
    ),
    # Where there are bounds, the narrower ones.
    (
      specs.BoundedArray((2,), np.float64, -1.0, [1.0, 9.0]),
      (None, 5.0),
      ([-1, -1], [1, 5]),
    ),
    # As dm_control says that there are none.
    (
      specs.BoundedArray((2,), np.float64, -1e10, 1e10),
      (-1.0, 1.0),
      ([-1, -1], [1, 1]),
    ),
  ],
)
def test_bounds_that_the_caller_gives(spec, given, expected):
  inside = Strict(action=spec)
  environment = environments.adapt(inside, minimum=given[0], maximum=given[1])
  environment.reset()
  for end in (-1.0, 1.0):
    environment.step(np.full(2, end, np.float32))
  np.testing.assert_array_equal(inside.actions, expected)


@pytest.mark.parametrize(
  ("reward", "pay", "expected"),
  [
    (REWARDS, lambda step: 0.5, 0.5),
    (specs.Array((1,), np.float64), lambda step: np.array([0.5]), 0.5),
    (specs.Array((1, 1), np.float32), lambda step: np.float32([[2]]), 2.0),
    (specs.Array((), np.int64), lambda step: 3, 3.0),
    (specs.Array((), bool), lambda step: np.bool_(True), 1.0),
  ],
)
def test_rewards_and_discounts_become_single_numbers(reward, pay, expected):
  environment = environments.adapt(Strict(reward=reward, pay=pay))
  first = environment.reset()
  assert first.reward is first.discount is None
  timestep = environment.step(np.zeros(2, np.float32))
  for spec, value, number in (
    (environment.reward_spec(), timestep.reward, expected),
    (environment.discount_spec(), timestep.discount, 1.0),
  ):
    assert (spec.shape, spec.dtype) == ((), np.float32)
    spec.validate(value)
    assert value == number


def test_bounds_of_rewards_stay():
  spec = specs.BoundedArray((1,), np.float64, [-2.0], [3.0])
  found = environments.adapt(Strict(reward=spec)).reward_spec()
  assert (found.minimum, found.maximum) == (-2.0, 3.0)


def of_actions(*args):
  return lambda: environments.adapt(Strict(action=specs.BoundedArray(*args)))


def of_observations(spec):
  return lambda: environments.adapt(Strict(spec, lambda step: None))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (
      lambda: environments.adapt(Strict(action=specs.DiscreteArray(3))),
      "actions must be continuous.*discrete.*DiscreteArray",
    ),
    (of_actions((2,), np.int32, 0, 3), "actions must be continuous.*int32"),
    (
      lambda: environments.adapt(Strict(action=specs.StringArray((2,)))),
      "actions must be continuous.*no numbers.*StringArray",
    ),
    (
      lambda: environments.adapt(Strict(action={"arm": ACTIONS})),
      "actions must be one bounded array of floats, got {'arm'",
    ),
    (of_actions((0,), float, 0, 1), r"actions must not be empty.*\(0,\)"),
    (
      of_actions((2,), float, 0, np.inf),
      r"actions must be bounded.*inf.*give finite ones by .*adapt",
    ),
    (
      of_actions((2,), float, -np.inf, np.inf),
      "actions must be bounded.*inf.*minimum=.*, maximum=",
    ),
    (of_actions((40,), float, -1e10, 1e10), "actions must be bounded.*inf"),
    (of_actions((2,), float, np.nan, 1), "actions must be bounded.*nan"),
    (of_actions((2,), float, 1, 1), "actions must have minimum < maximum"),
    (
      of_actions((1,), float, -1.7e308, 1.7e308),
      "actions must have bounds whose difference",
    ),
    (
      lambda: environments.adapt(Strict(action=specs.Array((2,), float))),
      "actions must be bounded.*inf",
    ),
    (
      lambda: environments.adapt(Strict(), minimum=2.0),
      "actions must have minimum < maximum",
    ),
    (
      lambda: environments.adapt(Strict(), minimum=[0.0, 0.0, 0.0]),
      r"minimum must be one number or of the actions' shape \(2,\).*\(3,\)",
    ),
    (
      of_observations(specs.StringArray(())),
      "observations must be numbers.*StringArray",
    ),
    (
      of_observations(
        {"a": [specs.Array((3,), float), specs.Array((), complex)]}
      ),
      r"observations\['a'\]\[1\] must be numbers.*complex",
    ),
    (of_observations({}), "observations must not be empty"),
    (
      of_observations({"a": specs.Array((3, 0), float)}),
      "observations must not be empty",
    ),
    (
      lambda: environments.adapt(Strict(reward=specs.Array((2,), float))),
      r"rewards must be one number.*\(2,\)",
    ),
    (
      lambda: environments.adapt(Strict(reward={"a": REWARDS})),
      "rewards must be one number",
    ),
    (
      lambda: environments.adapt(object()),
      "environment must be a dm_env.Environment, got object",
    ),
  ],
)
def test_what_cannot_be_brought_is_named_in_one_line(make, message):
  with pytest.raises(ValueError, match=message) as raised:
    make()
  assert "\n" not in str(raised.value)
  assert len(str(raised.value)) < 700


SPEC = {"arm": specs.Array((2,), float), "legs": [specs.Array((), int)] * 2}
GOOD = {"arm": np.zeros(2), "legs": [1, 2]}


@pytest.mark.parametrize(
  ("bad", "message"),
  [
    (
      GOOD | {"arm": np.zeros(3)},
      r"^observation\['arm'\] is of shape \(3,\) at step 2 of the episode; "
      r"the spec says \(2,\)\.$",
    ),
    (GOOD | {"arm": np.zeros((1, 2))}, r"\['arm'\] is of shape \(1, 2\) at"),
    (GOOD | {"arm": None}, r"\['arm'\] is None at step 2.*numbers"),
    (GOOD | {"arm": "ab"}, r"\['arm'\] is of str at step 2.*numbers"),
    (
      GOOD | {"legs": [1]},
      r"\['legs'\] is a sequence of 1 at.*sequence of 2\.",
    ),
    (
      GOOD | {"legs": [1, [2]]},
      r"\['legs'\]\[1\] is of shape \(1,\) at step 2",
    ),
    (GOOD | {"legs": [[1], [2, 3]]}, r"\['legs'\]\[0\] is of shape \(1,\)"),
    (GOOD | {"tail": 1.0}, "of 'arm', 'legs', 'tail' at step 2.*'legs'"),
    ({"arm": np.zeros(2)}, "a dictionary of 'arm' at step 2.*'arm', 'legs'"),
    (np.zeros(4), "^observation is of ndarray at step 2.*dictionary of 'arm'"),
    (None, "^observation is None at step 2"),
  ],
)
@pytest.mark.parametrize("flatten", [True, False])
def test_what_is_not_as_the_spec_says_is_named(bad, message, flatten):
  environment = environments.adapt(
    Strict(SPEC, lambda step: bad if step == 2 else GOOD), flatten=flatten
  )
  for _ in range(2):
    environment.reset()
    environment.step(np.zeros(2))
    with pytest.raises(InvalidValueError, match=message):
      environment.step(np.zeros(2))


def test_acmes_agents_can_store_it():
  nested = Strict(SPEC, lambda step: GOOD, reward=specs.Array((1,), float))
  environment = environments.adapt(nested)
  time_steps.require_storable(make_environment_spec(environment), environment)


def test_a_task_of_dm_control_is_what_make_makes_of_it():
  from dm_control import suite

  ours = environments.make("walker:walk", 3)
  adapted = environments.adapt(
    suite.load("walker", "walk", {"random": np.random.RandomState(3)})
  )
  assert ours.action_spec().shape == adapted.action_spec().shape
  steps = [(ours.reset(), adapted.reset())]
  for action in np.random.default_rng(0).uniform(-1.2, 1.2, (20, 6)):
    steps.append((ours.step(np.float32(action)), adapted.step(action)))
  for first, second in steps:
    np.testing.assert_array_equal(first.step_type, second.step_type)
    # Actions are scaled in another precision.
    np.testing.assert_allclose(
      first.observation, second.observation, rtol=1e-3, atol=1e-3
    )
  with pytest.raises(ValueError, match="give finite ones"):
    environments.adapt(suite.load("lqr", "lqr_2_1"))


def test_what_the_wrapped_environment_has_is_still_there():
  inside = Strict()
  environment = environments.adapt(inside)
  assert environment.actions is inside.actions
  assert isinstance(environment, wrappers.SinglePrecision)
