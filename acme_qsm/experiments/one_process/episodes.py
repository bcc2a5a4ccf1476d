"""Episodes of environments that are stepped together, and what is seen."""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np

from acme_qsm.experiments.config import Group
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import Counts
from acme_qsm.replay import validation


@dataclasses.dataclass
class _Episode:
  """An episode that goes on.

  Attributes:
    timestep: its newest time step.
    start: when it began, in seconds.
    episode_return: the sum of its rewards.
    length: its steps.
  """

  timestep: dm_env.TimeStep
  start: float
  episode_return: float = 0.0
  length: int = 0


class Episodes:
  """Episodes of one or more environments, each beside the others.

  All environments make a step at a time, with actions that are chosen in one
  call.
  """

  def __init__(
    self,
    group: Group,
    actor: Any,
    seed: int,
    observers: Sequence[Any],
    counts: Counts,
    logger: Any,
  ):
    """Initialises it; episodes begin when they are looked at.

    Args:
      group: E environments.
      actor: observes what happens in each.
      seed: the actor's number of the seed that they belong to.
      observers: Acme's observers, which see every environment.
      counts: counts `actor_steps` and `actor_episodes`.
      logger: gets a row, with all counts, for each episode that ends.
    """
    self._group = group
    self._actor = actor
    self._seed = seed
    self._observers = observers
    self._counts = counts
    self._logger = logger
    self._episodes: list[_Episode | None] = [None] * len(group.environments)

  def observations(self, num_environments: int) -> list[Any]:
    """Looks at environments; begins an episode where none goes on.

    Args:
      num_environments: how many of them, the first ones.

    Returns:
      Their newest observations.
    """
    return [
      self._episode(index).timestep.observation
      for index in range(num_environments)
    ]

  def step(self, actions: Sequence[np.ndarray]) -> None:
    """Makes a step in as many environments as there are actions.

    Args:
      actions: for what `observations` returned.
    """
    timesteps = self._group.step(actions)
    for index, seen in enumerate(zip(actions, timesteps, strict=True)):
      self._record(index, *seen)

  def _episode(self, index: int) -> _Episode:
    """The episode that goes on in an environment; begins one if none does."""
    episode = self._episodes[index]
    if episode is not None:
      return episode
    start = time.monotonic()
    episode = _Episode(self._group.reset(index), start)
    self._actor.observe_first(episode.timestep, self._seed, index)
    for observer in self._observers:
      observer.observe_first(self._group.environments[index], episode.timestep)
    self._episodes[index] = episode
    return episode

  def _record(
    self, index: int, action: np.ndarray, timestep: dm_env.TimeStep
  ) -> None:
    """Takes note of a step that an environment has made."""
    episode = self._episodes[index]
    assert episode is not None
    reward = validation.take_number(
      "reward", timestep.reward, episode.length + 1
    )
    self._actor.observe(action, timestep, self._seed, index)
    self._counts.increment(**{ACTOR_STEPS: 1})
    for observer in self._observers:
      observer.observe(self._group.environments[index], timestep, action)
    episode.timestep = timestep
    episode.episode_return += reward
    episode.length += 1
    if timestep.last():
      self._end(index, episode)

  def _end(self, index: int, episode: _Episode) -> None:
    """Logs an episode that has ended."""
    self._episodes[index] = None
    counts = self._counts.increment(actor_episodes=1)
    row = {
      "episode_return": episode.episode_return,
      "episode_length": episode.length,
      "steps_per_second": episode.length / (time.monotonic() - episode.start),
    }
    for observer in self._observers:
      row |= observer.get_metrics()
    self._logger.write({**counts, **row})
