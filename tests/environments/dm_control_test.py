"""The environments: real dm_control tasks in canonical form."""

import numpy as np
import pytest
from dm_control import suite
from dm_env import specs

from acme_qsm import environments
from acme_qsm.specs import make_environment_spec
from acme_qsm.specs import validate_environment_spec


def run(environment, actions):
  """Observations and rewards of an episode's start under these actions."""
  timesteps = [environment.reset()]
  timesteps += [environment.step(action) for action in actions]
  return (
    np.stack([timestep.observation for timestep in timesteps]),
    np.stack([timestep.reward for timestep in timesteps[1:]]),
  )


def make_actions(environment, bound, count=20):
  shape = (count, *environment.action_spec().shape)
  actions = np.random.default_rng(0).uniform(-bound, bound, shape)
  return actions.astype(np.float32)


def test_every_task_of_the_suite_is_known():
  assert tuple(map(":".join, suite.ALL_TASKS)) == environments.TASKS
  assert {"cartpole:swingup", "cartpole:balance"} <= set(environments.TASKS)
  for task in environments.TASKS:
    environments.validate_task(task)


@pytest.mark.parametrize(
  ("task", "observation_size", "action_size"),
  [
    ("cartpole:swingup", 5, 1),
    ("reacher:easy", 6, 2),
    ("walker:walk", 24, 6),
  ],
)
def test_environments_are_canonical(task, observation_size, action_size):
  environment = environments.make(task, seed=2**32 - 1)  # The largest.
  spec = make_environment_spec(environment)
  validate_environment_spec(spec)
  assert spec.observations.shape == (observation_size,)
  assert spec.observations.dtype == np.float32
  assert spec.actions.shape == (action_size,)
  assert spec.actions.dtype == np.float32
  np.testing.assert_array_equal(spec.actions.minimum, -np.ones(action_size))
  np.testing.assert_array_equal(spec.actions.maximum, np.ones(action_size))
  timestep = environment.reset()
  assert timestep.first()
  spec.observations.validate(timestep.observation)
  for action in make_actions(environment, 1.0):
    timestep = environment.step(action)
    assert timestep.mid()
    spec.observations.validate(timestep.observation)
    assert np.asarray(timestep.reward).dtype == np.float32
    assert np.asarray(timestep.discount).dtype == np.float32
    assert 0.0 <= timestep.reward <= 1.0
    assert timestep.discount == 1.0


def get_forces(environment):
  """What MuJoCo was last told to do."""
  while not hasattr(environment, "physics"):
    environment = environment.environment
  return environment.physics.control()


@pytest.mark.parametrize(
  ("task", "minimum", "maximum"),
  [
    ("quadruped:walk", [-1.0, -1.0, -0.8] * 4, [1.0, 1.1, 0.8] * 4),
    # No bounds in dm_control: 1e10 times the action would be no task.
    ("lqr:lqr_2_1", [-1.0], [1.0]),
  ],
)
def test_actions_are_scaled_to_the_tasks_bounds(task, minimum, maximum):
  environment = environments.make(task, seed=0)
  environment.reset()
  ones = np.ones(environment.action_spec().shape, np.float32)
  for action, expected in (
    (ones, maximum),
    (-ones, minimum),
    # MuJoCo itself clips only where the task has bounds.
    (3 * ones, maximum),
    (-3 * ones, minimum),
    (0 * ones, np.mean([minimum, maximum], axis=0)),
  ):
    timestep = environment.step(action)
    np.testing.assert_allclose(get_forces(environment), expected, atol=1e-6)
    assert np.all(np.abs(timestep.observation) < 100.0)


def test_a_time_limit_is_no_termination():
  environment = environments.make("cartpole:balance", seed=0)
  timestep, length = environment.reset(), 0
  while not timestep.last():
    timestep, length = environment.step(np.zeros(1, np.float32)), length + 1
  assert length == 1000
  assert timestep.discount == 1.0


@pytest.mark.parametrize(("action_repeat", "length"), [(2, 500), (3, 334)])
def test_actions_are_repeated_and_their_rewards_summed(action_repeat, length):
  repeated = environments.make(
    "cartpole:balance", seed=0, action_repeat=action_repeat
  )
  single = environments.make("cartpole:balance", seed=0)
  first = repeated.reset()
  np.testing.assert_array_equal(first.observation, single.reset().observation)
  actions = np.random.default_rng(0).uniform(-1.0, 1.0, (length, 1))
  left = 1000
  for i, action in enumerate(actions.astype(np.float32)):
    found = repeated.step(action)
    # The last of 334 steps is but one of the 1000.
    steps = [single.step(action) for _ in range(min(action_repeat, left))]
    left -= len(steps)
    np.testing.assert_array_equal(found.observation, steps[-1].observation)
    assert found.reward == pytest.approx(sum(s.reward for s in steps), rel=1e-6)
    assert found.last() == steps[-1].last() == (i == length - 1)
  assert left == 0


@pytest.mark.parametrize("task", ["cartpole:swingup", "reacher:easy"])
def test_the_seed_sets_the_episodes(task):
  first, again, other = (environments.make(task, seed) for seed in (1, 1, 2))
  actions = make_actions(first, 1.0)
  # Two episodes, so that the second's initial state is the seed's as well.
  for _ in range(2):
    observations, rewards = run(first, actions)
    repeated = run(again, actions)
    np.testing.assert_array_equal(observations, repeated[0])
    np.testing.assert_array_equal(rewards, repeated[1])
    different, _ = run(other, actions)
    assert not np.allclose(observations[0], different[0])


@pytest.mark.parametrize(
  ("task", "near"),
  [
    ("cartpole:swing_up", "cartpole:swingup"),
    ("cartpole_swingup", "cartpole:swingup"),
    ("cheetah", "cheetah:run"),
    ("walker:wlak", "walker:walk"),
  ],
)
def test_an_unknown_task_is_told_its_neighbours(task, near):
  with pytest.raises(ValueError, match=rf"{task!r}.*did you mean.*{near}"):
    environments.make(task, seed=0)


@pytest.mark.parametrize("task", ["", "zzz"])
def test_a_task_like_no_other_is_told_them_all(task):
  with pytest.raises(ValueError, match="Unknown task") as error:
    environments.validate_task(task)
  for name in environments.TASKS:
    assert name in str(error.value)


@pytest.mark.parametrize(("action_repeat", "most"), [(1, 1.0), (4, 4.0)])
def test_the_spec_states_the_bounds_of_rewards(action_repeat, most):
  environment = environments.make(
    "cartpole:balance", seed=0, action_repeat=action_repeat
  )
  rewards = make_environment_spec(environment).rewards
  assert isinstance(rewards, specs.BoundedArray)
  assert (rewards.minimum, rewards.maximum) == (0.0, most)
  # And those whose rewards have no bounds state none.
  environment = environments.make(
    "lqr:lqr_2_1", seed=0, action_repeat=action_repeat
  )
  rewards = make_environment_spec(environment).rewards
  assert not isinstance(rewards, specs.BoundedArray)
