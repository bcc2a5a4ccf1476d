"""A wrapper that makes several steps of one."""

from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_qsm.environments.wrappers.base import EnvironmentWrapper


class ActionRepeat(EnvironmentWrapper):
  """Repeats each action, or until the episode ends, and sums the rewards.

  Each reward is discounted by the environment's own discounts before it, whose
  product is the discount. Where each reward has bounds, so has their sum.
  """

  def __init__(self, environment: dm_env.Environment, num_repeats: int):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.
      num_repeats: how often an action is taken, at least 1.
    """
    spec: Any = environment.reward_spec()
    if isinstance(spec, specs.BoundedArray):
      # A sum may have fewer terms: an episode can end in the middle.
      spec = spec.replace(
        minimum=np.minimum(spec.minimum, spec.minimum * num_repeats),
        maximum=np.maximum(spec.maximum, spec.maximum * num_repeats),
      )
    super().__init__(environment, rewards=spec)
    self._num_repeats = num_repeats

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes the steps, or begins an episode after the last one."""
    timestep = self._environment.step(action)
    total, discount = map(_own, (timestep.reward, timestep.discount))
    for _ in range(self._num_repeats - 1):
      # A None, such as a first time step's, is left to whoever takes it.
      if not timestep.mid() or total is None or discount is None:
        break
      timestep = self._environment.step(action)
      if timestep.reward is None or timestep.discount is None:
        return timestep
      total = total + timestep.reward * discount
      discount = discount * timestep.discount
    return timestep._replace(reward=total, discount=discount)


def _own(value: Any) -> Any:
  """A value that stays, where an environment writes into its array again."""
  return value.copy() if isinstance(value, np.ndarray) else value
