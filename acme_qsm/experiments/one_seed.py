"""One seed's learner and actor, whosever they are, as those of S seeds.

What runs and evaluates an agent calls the methods of `agents.DiffusionLearner`
and `agents.Actor` with seeds and environments. With one of each, it calls them
by these classes, which pass on what Acme's learners and actors have.
"""

from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np


class OneLearner:
  """A learner of one seed.

  Attributes:
    seeds: the learner itself, which saves and restores.
  """

  def __init__(self, learner: Any):
    self.seeds = [learner]

  def step(self, takes_part: Sequence[bool]) -> None:
    """Makes the learner's step."""
    del takes_part
    self.seeds[0].step()


class OneActor:
  """An actor of one seed in one environment.

  Attributes:
    num_seeds: 1.
  """

  num_seeds = 1

  def __init__(self, actor: Any):
    self._actor = actor

  def observe_first(
    self, timestep: dm_env.TimeStep, seed: int = 0, environment: int = 0
  ) -> None:
    """Starts an episode."""
    del seed, environment
    self._actor.observe_first(timestep)

  def select_actions(
    self, observations: Sequence[Sequence[Any]]
  ) -> list[list[np.ndarray]]:
    """Acts."""
    return [[self._actor.select_action(observations[0][0])]]

  def observe(
    self,
    action: np.ndarray,
    next_timestep: dm_env.TimeStep,
    seed: int = 0,
    environment: int = 0,
  ) -> None:
    """Records a step."""
    del seed, environment
    self._actor.observe(action, next_timestep)

  def update(
    self, wait: bool = False, takes_part: Sequence[bool] = (True,)
  ) -> None:
    """Asks for new parameters."""
    del takes_part
    self._actor.update(wait=wait)
