"""An environment that is told what it gives, and checks what it is given."""

from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np
import tree
from dm_env import specs

ACTIONS = specs.BoundedArray((2,), np.float64, -1.0, 1.0, "torque")
PLACE = specs.Array((2,), np.float64, "place")
REWARDS = specs.Array((), np.float64, "reward")


class Scripted(dm_env.Environment):
  """An environment of the given specs.

  Attributes:
    actions: those that it was given.
  """

  def __init__(
    self,
    observation: Any = PLACE,
    observe: Callable[[int], Any] | None = None,
    action: Any = ACTIONS,
    reward: Any = REWARDS,
    pay: Callable[[int], Any] = float,
    discount: Callable[[int], Any] = lambda step: 1.0,
    discounts: Any = None,
    length: int = 1_000,
  ):
    """What is seen, paid and discounted is made of the episode's step."""
    self._specs = (observation, action, reward, discounts)
    self._observe = observe or (
      lambda step: tree.map_structure(lambda s: s.generate_value(), observation)
    )
    self._pay, self._discount = pay, discount
    self._length = length
    self._step: int | None = None
    self.actions: list[Any] = []

  def reset(self):
    self._step = 0
    return dm_env.restart(self._observe(0))

  def step(self, action):
    if self._step is None or self._step == self._length:
      return self.reset()
    tree.map_structure(lambda s, a: s.validate(a), self._specs[1], action)
    self.actions.append(action)
    self._step += 1
    is_last = self._step == self._length
    return dm_env.TimeStep(
      dm_env.StepType.LAST if is_last else dm_env.StepType.MID,
      self._pay(self._step),
      self._discount(self._step),
      self._observe(self._step),
    )

  def observation_spec(self):
    return self._specs[0]

  def action_spec(self):
    return self._specs[1]

  def reward_spec(self):
    return self._specs[2]

  def discount_spec(self):
    return self._specs[3] or super().discount_spec()
