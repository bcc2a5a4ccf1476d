"""The wrappers against those of Acme, bit for bit, on real tasks."""

import copy

import dm_env
import numpy as np
import pytest
from dm_control import suite
from dm_env import specs as array_specs

from acme_qsm import environments
from acme_qsm import specs
from acme_qsm.environments import wrappers

FLOATS = array_specs.Array((), np.float64)


class Fading(dm_env.Environment):
  """Each step's discount is 0.5, and the third ends the episode at 0.25."""

  def __init__(self):
    self.num_steps = 0

  def _observe(self):
    return {"position": np.full(2, 0.1 * self.num_steps), "count": np.int64(3)}

  def reset(self):
    self.num_steps = 0
    return dm_env.restart(self._observe())

  def step(self, action):
    self.num_steps += 1
    # Acme's wrapper gives another precision than the spec says.
    reward = self.num_steps * 0.1 + float(np.sum(action, dtype=np.float64))
    if self.num_steps == 3:
      return dm_env.truncation(reward, self._observe(), discount=0.25)
    return dm_env.transition(reward, self._observe(), discount=0.5)

  def observation_spec(self):
    return {
      "position": array_specs.Array((2,), np.float64, "position"),
      "count": array_specs.Array((), np.int64, "count"),
    }

  def action_spec(self):
    return array_specs.BoundedArray((2,), np.float64, [-1.0, 0.0], [3.0, 0.5])


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
  environment = wrappers.ConcatenatedObservations(environment)
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


def test_fields_of_any_shape_become_one_vector():
  class Table(Fading):
    def _observe(self):
      return {"z": np.float64(7.0), "a": np.arange(6.0).reshape(2, 3)}

    def observation_spec(self):
      return {
        "z": FLOATS,
        "a": array_specs.Array((2, 3), np.float64),
      }

  environment = wrappers.ConcatenatedObservations(Table())
  observation = environment.reset().observation
  np.testing.assert_array_equal(observation, [0, 1, 2, 3, 4, 5, 7])
  environment.observation_spec().validate(observation)


def test_single_precision_of_a_dictionary():
  environment = wrappers.SinglePrecision(Fading())
  for timestep in (environment.reset(), environment.step(np.zeros(2))):
    for name, spec in environment.observation_spec().items():
      spec.validate(timestep.observation[name])
  assert timestep.observation["count"].dtype == np.int32


def test_actions_without_bounds_stay_as_they_are():
  class Unbounded(Fading):
    def action_spec(self):
      return array_specs.Array((2,), np.float64)

  environment = wrappers.CanonicalActions(Unbounded())
  assert environment.action_spec() == Unbounded().action_spec()
  environment.reset()
  assert environment.step([100.0, 20.0]).reward == 120.1


def test_what_a_wrapper_lacks_is_the_environments():
  environment = wrap(Fading(), 2)
  environment.reset()
  environment.step(np.zeros(2))
  assert environment.num_steps == 2
  assert isinstance(environment.environment, wrappers.CanonicalActions)
  with pytest.raises(AttributeError, match="num_stairs"):
    _ = environment.num_stairs
  # Copies ask for attributes before there are any.
  assert copy.deepcopy(environment).num_steps == 2


def test_closing_closes_the_environment_inside():
  closed = []

  class Closing(Fading):
    def close(self):
      closed.append(self)

  inside = Closing()
  wrap(inside, 2).close()
  assert closed == [inside]
