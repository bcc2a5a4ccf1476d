"""The wrappers, each by itself, and against those of Acme bit for bit."""

import copy

import numpy as np
import pytest
import tree
from dm_control import suite
from dm_env import specs as array_specs

from acme_qsm import environments
from acme_qsm import specs
from acme_qsm.environments import wrappers
from tests.environments.scripted import ACTIONS
from tests.environments.scripted import PLACE
from tests.environments.scripted import Scripted

COUNT = array_specs.Array((), np.int64, "count")


class Fading(Scripted):
  """Each step's discount is 0.5, and the third ends the episode at 0.25."""

  def __init__(self):
    super().__init__(
      {"position": PLACE, "count": COUNT},
      lambda step: {"position": np.full(2, 0.1 * step), "count": np.int64(3)},
      array_specs.BoundedArray((2,), np.float64, [-1.0, 0.0], [3.0, 0.5]),
      discount=lambda step: 0.25 if step == 3 else 0.5,
      length=3,
    )

  def step(self, action):
    # Acme's wrapper gives another precision than the spec says.
    action = np.asarray(action, np.float64)
    timestep = super().step(action)
    return timestep._replace(reward=0.1 * timestep.reward + action.sum())


def load(task, seed=0):
  domain, name = task.split(":")
  return suite.load(
    domain, name, task_kwargs={"random": np.random.RandomState(seed)}
  )


def wrap_as_acme(environment, action_repeat):
  import acme_qsm.acme_compat  # noqa: F401  # isort: skip

  from acme import wrappers as acme_wrappers

  environment = acme_wrappers.ConcatObservationWrapper(environment)
  environment = acme_wrappers.CanonicalSpecWrapper(environment, clip=True)
  if action_repeat > 1:
    environment = acme_wrappers.ActionRepeatWrapper(environment, action_repeat)
  return acme_wrappers.SinglePrecisionWrapper(environment)


def wrap(environment, action_repeat):
  if action_repeat > 1:
    environment = wrappers.ActionRepeat(environment, action_repeat)
  environment = wrappers.FloatObservations(environment)
  environment = wrappers.CanonicalActions(environment)
  return wrappers.SinglePrecision(environment)


def assert_same_timestep(found, expected):
  assert found.step_type is expected.step_type
  for value, other in zip(found[1:], expected[1:], strict=True):
    assert type(value) is type(other)
    if other is not None:
      assert value.dtype == other.dtype
      assert value.shape == other.shape
      np.testing.assert_array_equal(value, other)


def assert_same_episodes(environment, expected, num_episodes):
  """Acts alike in both to the ends; the last steps of each episode."""
  rng = np.random.default_rng(0)
  shape = expected.action_spec().shape
  last = []
  for _ in range(num_episodes):
    timestep, other = environment.reset(), expected.reset()
    assert_same_timestep(timestep, other)
    while not other.last():
      # Some of them beyond the bounds.
      action = rng.uniform(-1.2, 1.2, shape).astype(np.float32)
      timestep, other = environment.step(action), expected.step(action)
      assert_same_timestep(timestep, other)
    last.append(timestep)
  return last


@pytest.mark.acme
@pytest.mark.parametrize(
  ("task", "action_repeat"),
  [
    ("cartpole:swingup", 1),
    ("cheetah:run", 4),
    # A scalar among the observations; an episode ends within a repeat.
    ("walker:walk", 7),
    # Bounds other than -1 and 1.
    ("quadruped:walk", 3),
  ],
)
def test_tasks_are_bit_for_bit_as_with_acmes_wrappers(task, action_repeat):
  environment = environments.make(task, 0, action_repeat=action_repeat)
  expected = wrap_as_acme(load(task), action_repeat)
  assert_same_episodes(environment, expected, 2)
  assert environment.observation_spec() == expected.observation_spec()
  assert environment.action_spec() == expected.action_spec()
  assert environment.discount_spec() == expected.discount_spec()


@pytest.mark.acme
@pytest.mark.parametrize("action_repeat", [1, 2, 5])
def test_discounts_and_ends_are_acmes(action_repeat):
  (last,) = assert_same_episodes(
    wrap(Fading(), action_repeat), wrap_as_acme(Fading(), action_repeat), 1
  )
  expected = {1: 0.25, 2: 0.25, 5: 0.5 * 0.5 * 0.25}
  assert last.discount == expected[action_repeat]


@pytest.mark.acme
def test_specs_are_acmes():
  import acme_qsm.acme_compat  # noqa: F401  # isort: skip

  from acme import specs as acme_specs

  found = specs.make_environment_spec(wrap(Fading(), 2))
  expected = acme_specs.make_environment_spec(wrap_as_acme(Fading(), 2))
  assert found._fields == expected._fields
  assert tuple(found) == tuple(expected)
  specs.validate_environment_spec(found)


def test_actions_without_bounds_stay_as_they_are():
  spec = array_specs.Array((2,), np.float64)
  environment = wrappers.CanonicalActions(inside := Scripted(action=spec))
  assert environment.action_spec() is spec
  environment.reset()
  environment.step(action := np.array([100.0, 20.0]))
  assert inside.actions[0] is action


def test_what_a_wrapper_lacks_is_the_environments():
  environment = wrap(Fading(), 2)
  environment.reset()
  environment.step(np.zeros(2))
  assert len(environment.actions) == 2
  assert isinstance(environment.environment, wrappers.CanonicalActions)
  with pytest.raises(AttributeError, match="num_stairs"):
    _ = environment.num_stairs
  # Copies ask for attributes before there are any.
  assert len(copy.deepcopy(environment).actions) == 2


def test_closing_closes_the_environment_inside():
  closed = []

  class Closing(Fading):
    def close(self):
      closed.append(self)

  inside = Closing()
  wrap(inside, 2).close()
  assert closed == [inside]


def test_end_points_are_within_bounds_of_float64():
  # Half of such bounds are not, rounded to float32.
  random = np.random.default_rng(0)
  for _ in range(200):
    minimum = random.uniform(-2.0, 1.0, 3)
    maximum = minimum + random.uniform(0.01, 3.0, 3)
    inside = Scripted(
      action=array_specs.BoundedArray((3,), np.float64, minimum, maximum)
    )
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
  spec = array_specs.BoundedArray((2,), np.float64, [-0.3, 0.1], [0.7, 2.3])
  inside = Scripted(action=spec)
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
    (ACTIONS, np.float32([0.5, 0.1])),
    (ACTIONS, [0.5, 0.1]),
    (array_specs.Array((2, 1), np.float64), np.float32([[0.5], [0.1]])),
    (array_specs.DiscreteArray(3, np.int64), np.int32(2)),
    (array_specs.DiscreteArray(3, np.int32), np.int32(2)),
    (
      {"arm": ACTIONS, "gear": array_specs.DiscreteArray(3, np.int64)},
      {"arm": np.float32([0.5, 0.1]), "gear": np.int32(2)},
    ),
  ],
)
def test_single_precision_gives_actions_as_the_spec_inside_says(spec, action):
  inside = Scripted(action=spec)
  environment = wrappers.SinglePrecision(inside)
  environment.reset()
  # It raises for another type.
  environment.step(action)
  assert len(inside.actions) == 1


def bounds(minimum, maximum, dtype=np.float64):
  return array_specs.BoundedArray((2,), dtype, minimum, maximum)


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    (bounds(0.0, np.inf), "infinite.*inf.*adapt"),
    (bounds(-np.inf, np.inf), "infinite bounds"),
    (bounds(np.nan, 1.0), "bounds.*nan"),
    (bounds(1.0, 1.0), "minimum < maximum"),
    (bounds(0, 3, np.int32), "continuous.*int32"),
    (array_specs.DiscreteArray(3), "continuous.*discrete"),
    ({"arm": ACTIONS}, "one bounded array"),
  ],
)
def test_bounds_that_cannot_be_used(spec, message):
  with pytest.raises(ValueError, match=f"^actions must .*{message}") as raised:
    wrappers.CanonicalActions(Scripted(action=spec))
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize("num_repeats", [1, 2, 3, 5])
def test_a_step_after_the_last_begins_an_episode(num_repeats):
  environment = wrappers.ActionRepeat(Scripted(length=3), num_repeats)
  # As before the first.
  for _ in range(3):
    timestep = environment.step(np.zeros(2))
    assert timestep.first()
    assert timestep.reward is timestep.discount is None
    rewards = []
    while not timestep.last():
      timestep = environment.step(np.zeros(2))
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
  first, second = (environment.step(np.zeros(2)).reward for _ in range(2))
  assert (first, second) == (1110.0, 1110000.0)


def test_a_reward_of_none_is_left_to_whoever_takes_it():
  environment = wrappers.ActionRepeat(
    Scripted(pay=lambda step: None if step == 2 else 1.0), 3
  )
  environment.reset()
  timestep = environment.step(np.zeros(2))
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
  timestep = environment.step(np.zeros(2))
  assert timestep.reward.dtype == timestep.observation.dtype == dtype
  np.testing.assert_array_equal(timestep.reward, np.dtype(dtype).type(value))
  assert not recwarn.list


@pytest.mark.parametrize(
  ("spec", "observation"),
  [
    (
      {"place": PLACE, "arm": [PLACE, (COUNT,)]},
      {"place": np.ones(2), "arm": [np.ones(2), (np.int64(3),)]},
    ),
    # An array that is given as a list.
    (PLACE, [1, 0.5]),
  ],
)
def test_single_precision_of_nests_and_lists(spec, observation):
  environment = wrappers.SinglePrecision(
    Scripted(observation=spec, observe=lambda step: observation)
  )
  found = environment.observation_spec()
  dtypes = {leaf.dtype for leaf in tree.flatten(found)}
  assert dtypes <= {np.dtype(np.float32), np.dtype(np.int32)}
  for timestep in (environment.reset(), environment.step(np.zeros(2))):
    tree.map_structure(
      lambda leaf, value: leaf.validate(value), found, timestep.observation
    )
