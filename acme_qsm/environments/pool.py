"""dm_control's tasks, many environments at a time, stepped by EnvPool.

In threads of C++, where Python would step one after the other.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np

from acme_qsm.environments import wrappers
from acme_qsm.environments.tasks import validate_action_repeat
from acme_qsm.environments.tasks import validate_task


def require(task: str) -> None:
  """Finds out whether EnvPool can step a task.

  Args:
    task: `domain:task`, such as `cartpole:swingup`.

  Raises:
    ValueError: if the task is unknown, or one whose episodes differ.
    ModuleNotFoundError: if EnvPool is not installed.
  """
  validate_task(task)
  if task.startswith("lqr:"):
    raise ValueError(
      f"{task} cannot be stepped by envpool, which ends its episodes after "
      "1,000 steps; dm_control does not end them."
    )
  if importlib.util.find_spec("envpool") is None:
    raise ModuleNotFoundError(
      "envpool is not installed: install the extra `envpool`, on Python 3.12 "
      "or newer (in a clone: pip install '.[run,envpool]')."
    )


class Pool:
  """Environments of one task, in the form of `dm_control.make`.

  Physics, rewards and observations are dm_control's up to rounding. A seed
  gives other initial states than it gives there, of the same distribution.
  """

  def __init__(
    self, task: str, seeds: Sequence[int], *, action_repeat: int = 1
  ):
    """Makes the environments.

    Args:
      task: see `require`.
      seeds: a seed of each environment, in 0 .. 2^32 - 1.
      action_repeat: see `dm_control.make`.

    Raises:
      ValueError: if the task cannot be stepped, or action_repeat is not a
        positive integer.
      ModuleNotFoundError: if EnvPool is not installed.
    """
    require(task)
    validate_action_repeat(action_repeat)
    # Python 3.10, on which types are checked, has no EnvPool.
    import envpool  # pyright: ignore[reportMissingImports]

    from acme_qsm.environments.dm_control import suite

    domain, name = task.split(":")
    self._pool: Any = envpool.make_dm(
      _pool_name(task),
      num_envs=len(seeds),
      # EnvPool's seeds are signed.
      env_seed=[seed % 2**31 for seed in seeds],
    )
    self._action_repeat = action_repeat
    # EnvPool gives the observations of all of a domain's tasks.
    self._names = sorted(suite.load(domain, name).observation_spec())
    spec = self._pool.action_spec()
    self._offset, self._scale = spec.minimum, spec.maximum - spec.minimum
    self.environments = [self] * len(seeds)

  def reset(self, index: int) -> dm_env.TimeStep:
    """Begins an episode in one environment.

    Args:
      index: its number.

    Returns:
      The first time step.
    """
    first = self._pool.reset(np.array([index]))
    return dm_env.restart(self._observations(first)[0])

  def step(self, actions: Sequence[np.ndarray]) -> list[dm_env.TimeStep]:
    """Makes a step in as many environments, the first, as there are actions.

    Args:
      actions: of each a float vector in [-1, 1]; others are clipped.

    Returns:
      Their time steps; where an episode has ended before, the first of another.
    """
    forces = wrappers.scale_actions(
      np.asarray(actions), self._offset, self._scale
    ).astype(np.float64)
    going = np.arange(len(forces))
    rewards, discounts = np.zeros(len(forces)), np.ones(len(forces))
    observations: Any = [None] * len(forces)
    step_types: Any = [None] * len(forces)
    for _ in range(self._action_repeat):
      steps = self._pool.step(forces[going], going)
      rewards[going] += steps.reward * discounts[going]
      discounts[going] *= steps.discount
      for index, *seen in zip(
        going, steps.step_type, self._observations(steps), strict=True
      ):
        step_types[index], observations[index] = seen
      going = going[steps.step_type == dm_env.StepType.MID]
      if not going.size:
        break
    return [
      dm_env.restart(observation)
      if step_type == dm_env.StepType.FIRST
      else dm_env.TimeStep(
        dm_env.StepType(step_type), reward, discount, observation
      )
      for step_type, reward, discount, observation in zip(
        step_types,
        rewards.astype(np.float32),
        discounts.astype(np.float32),
        observations,
        strict=True,
      )
    ]

  def close(self) -> None:
    """Ends its threads."""
    self._pool.close()

  def _observations(self, steps: Any) -> np.ndarray:
    """[n, D] float32 observations, as `FloatObservations` gives them."""
    fields = [getattr(steps.observation, name) for name in self._names]
    return np.concatenate(
      [field.reshape(len(field), -1) for field in fields], axis=1
    ).astype(np.float32)


def _pool_name(task: str) -> str:
  """EnvPool's name of a task: `CartpoleSwingup-v1`."""
  words = task.replace(":", "_").split("_")
  return "".join(word[0].upper() + word[1:] for word in words) + "-v1"
