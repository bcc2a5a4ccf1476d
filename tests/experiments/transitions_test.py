"""The same transitions reach replay, however environments are stepped.

At time limits and terminations, of episodes shorter and longer than n steps.
EnvPool's are in `pool_test.py`.
"""

import itertools

import dm_env
import numpy as np
import pytest
from dm_env import specs

from tests.environments.transitions import run_and_compare

# Of the episodes in turn: how many steps, and the discount at their end.
SCRIPT = [(1, 0.0), (2, 1.0), (5, 0.0), (3, 1.0), (1, 1.0), (4, 0.25)]


class Scripted(dm_env.Environment):
  """Episodes of a script, in buffers that are written again and again.

  What is seen are the episode's number, its step and the last action.
  """

  def __init__(self, seed, shift=0):
    del seed
    self._script = itertools.cycle(SCRIPT[shift:] + SCRIPT[:shift])
    self._observation = np.zeros(3, np.float32)
    self._reward = np.zeros(1)
    self._discount = np.ones(1)
    self._end = (0, 0.0)

  def reset(self):
    self._end = next(self._script)
    self._observation += [1, 0, 0]
    self._observation[1:] = 0
    return dm_env.restart(self._observation)

  def step(self, action):
    self._observation[1] += 1
    self._observation[2] = action[0]
    self._reward[:] = self._observation[0] + 10.0 ** -self._observation[1]
    last = self._observation[1] == self._end[0]
    self._discount[:] = self._end[1] if last else 0.75
    return dm_env.TimeStep(
      dm_env.StepType.LAST if last else dm_env.StepType.MID,
      self._reward,
      self._discount,
      self._observation,
    )

  def observation_spec(self):
    return specs.Array((3,), np.float32)

  def action_spec(self):
    return specs.BoundedArray((1,), np.float32, -1.0, 1.0)

  def reward_spec(self):
    return specs.Array((1,), np.float64)


@pytest.mark.parametrize("n_step", [3, 7])
@pytest.mark.parametrize(
  "stepped",
  [
    {},
    {"num_envs": 3},
    {"num_seeds": 2, "num_envs": 2},
  ],
  ids=str,
)
def test_transitions_are_those_of_the_episodes(tmp_path, stepped, n_step):
  # Each environment begins elsewhere in the script; one is asked for its spec.
  shifts = itertools.count(-1)
  episodes = run_and_compare(
    tmp_path / "run",
    lambda seed: Scripted(seed, max(0, next(shifts)) % len(SCRIPT)),
    n_step=n_step,
    **stepped,
  )
  for number, of_one in enumerate(episodes):
    # Nothing is lost, nothing comes twice.
    script = itertools.cycle(SCRIPT[number:] + SCRIPT[:number])
    assert sum(len(episode) - 1 for episode in of_one) == 40
    for count, episode in enumerate(of_one[:-1]):
      length, discount = next(script)
      assert len(episode) - 1 == length
      assert episode[-1][2] == discount
      assert [step[4] for step in episode[1:]] == [False] * (length - 1) + [
        True
      ]
      assert [step[3][1] for step in episode[1:]] == [*range(1, length + 1)]
      assert {step[3][0] for step in episode[1:]} == {count + 1}
