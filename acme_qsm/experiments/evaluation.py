"""Evaluation: how well a policy does, without learning or exploring."""

import contextlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np

from acme_qsm.agents.seeds_actor import SeedsActor
from acme_qsm.experiments import environment_groups
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.records.run_records import RunRecords


class Evaluations:
  """A run's evaluations: in which environments, and what they gave.

  Attributes:
    num_episodes: episodes of each evaluation.
    evaluated_at: the environment step of the last evaluation, -1 for none.
    last: what the last evaluation of this process gave; empty for none.
  """

  def __init__(
    self,
    make_environment: Callable[[int], dm_env.Environment],
    num_episodes: int,
    records: RunRecords,
    evaluated_at: int = -1,
  ):
    """Initialises the evaluations.

    Args:
      make_environment: environment steps made -> an evaluation's environment.
      num_episodes: episodes of each evaluation.
      records: where results are kept.
      evaluated_at: the environment step of the last evaluation before.
    """
    self._make_environment = make_environment
    self._logger = records.logger("evaluator", ACTOR_STEPS)
    self.num_episodes = num_episodes
    self.evaluated_at = evaluated_at
    self.last: dict[str, float] = {}

  def opened(
    self, actor_steps: int
  ) -> contextlib.AbstractContextManager[dm_env.Environment]:
    """A context in which there is an evaluation's environment."""
    return environment_groups.opened(
      lambda: self._make_environment(actor_steps)
    )

  def record(
    self, counted: Mapping[str, float], result: Mapping[str, float]
  ) -> None:
    """Records a result, and what was counted when it was evaluated."""
    self.evaluated_at = int(counted[ACTOR_STEPS])
    self.last = dict(result)
    self._logger.write({**counted, **result})

  def close(self) -> None:
    """Closes the log."""
    self._logger.close()


class Evaluator(Evaluations):
  """Evaluates a run and records the results."""

  def __init__(
    self,
    actor: Any,
    make_environment: Callable[[int], dm_env.Environment],
    num_episodes: int,
    records: RunRecords,
    title: str,
    note: Callable[[str], Any],
    evaluated_at: int = -1,
  ):
    """Initialises the evaluator.

    Args:
      actor: acts without exploring.
      make_environment: environment steps made -> an evaluation's environment.
      num_episodes: episodes of each evaluation.
      records: where results are kept.
      title: what the run is called.
      note: is told each result, in a line.
      evaluated_at: the environment step of the last evaluation before.
    """
    super().__init__(make_environment, num_episodes, records, evaluated_at)
    self._actor = actor
    self._records = records
    self._title = title
    self._note = note

  def evaluate(
    self,
    counts: Callable[[], Mapping[str, float]],
    should_stop: Callable[[], bool],
  ) -> bool:
    """Evaluates the newest parameters.

    Args:
      counts: tells what was counted when the parameters were fetched; called
        after that.
      should_stop: asked after every step; where it says so, evaluation ends
        without a result.

    Returns:
      Whether there is a result.
    """
    self._actor.update(wait=True)
    counted = dict(counts())
    steps = int(counted[ACTOR_STEPS])
    with self.opened(steps) as environment:
      result = evaluate(
        environment, self._actor, self.num_episodes, should_stop
      )
    if result is None:
      return False
    self.record(counted, result)
    self._note(f"{steps:>9,} environment steps: {describe(result)}")
    self._records.draw_curve(self._title)
    return True


def describe(result: Mapping[str, float]) -> str:
  """Says in a phrase what `evaluate` returned."""
  return (
    f"evaluation return {result['episode_return']:.1f} ± "
    f"{result['episode_return_std']:.1f} "
    f"({result['episodes']:.0f} episodes, "
    f"{result['episode_return_min']:.1f} to "
    f"{result['episode_return_max']:.1f})"
  )


def evaluate(
  environment: dm_env.Environment,
  actor: Any,
  num_episodes: int,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Runs whole episodes and sums their rewards.

  Args:
    environment: the environment, evaluation's own.
    actor: acts; its parameters are left as they are.
    num_episodes: episodes to run, at least 1.
    should_stop: asked after every step; where it says so, evaluation ends
      without a result.

  Returns:
    Over the episodes, the mean, standard deviation, lowest and highest of the
    undiscounted return, their mean length and number; None if stopped.
  """
  episodes = _Episodes(environment, num_episodes)
  while not episodes.are_over:
    if episodes.timestep.first():
      actor.observe_first(episodes.timestep)
    action = actor.select_action(episodes.timestep.observation)
    actor.observe(action, episodes.step(action))
    if should_stop():
      return None
  return episodes.result()


def evaluate_seeds(
  environments_by_seed: Mapping[int, dm_env.Environment],
  num_seeds: int,
  actor: SeedsActor,
  num_episodes: int,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, dict[str, float]] | None:
  """Does what `evaluate` does, for several seeds at once.

  Args:
    environments_by_seed: the environment of each seed that is evaluated, by the
      actor's number of it; at least one.
    num_seeds: S, the actor's seeds.
    actor: acts for all of them.
    num_episodes: episodes of each seed to run, at least 1.
    should_stop: asked after every step of all; where it says so, evaluation
      ends without a result.

  Returns:
    By the same numbers what `evaluate` returns; None if stopped.
  """
  episodes = {
    index: _Episodes(environment, num_episodes)
    for index, environment in environments_by_seed.items()
  }
  while going := {
    index: each for index, each in episodes.items() if not each.are_over
  }:
    observations = {}
    for index, each in going.items():
      if each.timestep.first():
        actor.begin(index)
      observations[index] = [each.timestep.observation]
    actions = actor.select_actions(
      stack_seeds(observations, num_seeds),
      [i in going for i in range(num_seeds)],
    )
    for index, each in going.items():
      each.step(actions[index, 0])
    if should_stop():
      return None
  return {index: each.result() for index, each in episodes.items()}


def stack_seeds(
  observations_by_seed: Mapping[int, Sequence[np.ndarray]], num_seeds: int
) -> np.ndarray:
  """Stacks the observations of some seeds as a `SeedsActor` takes them.

  Args:
    observations_by_seed: up to E observations of each seed that acts, by its
      number, at least one of each; at least one such seed.
    num_seeds: S, all seeds.

  Returns:
    [S, E, ...] float32 observations, zeros where there is none.
  """
  num_envs = max(len(each) for each in observations_by_seed.values())
  shape = np.shape(next(iter(observations_by_seed.values()))[0])
  # Made anew each time: JAX may read it where it is, when it gets there.
  stacked = np.zeros((num_seeds, num_envs, *shape), np.float32)
  for index, observations in observations_by_seed.items():
    for number, observation in enumerate(observations):
      stacked[index, number] = observation
  return stacked


class _Episodes:
  """Whole episodes of an environment, a step at a time.

  Attributes:
    timestep: what is to be acted at.
    are_over: whether nothing is left to do.
  """

  def __init__(self, environment: dm_env.Environment, num_episodes: int):
    self._environment = environment
    self._num_left = num_episodes
    self._returns: list[float] = []
    self._lengths: list[int] = []
    self.are_over = False
    self._begin()

  def _begin(self) -> None:
    self.timestep = self._environment.reset()
    self._returns.append(0.0)
    self._lengths.append(0)
    self._num_left -= 1

  def step(self, action: np.ndarray) -> dm_env.TimeStep:
    """Acts; returns what the environment answered."""
    timestep = self._environment.step(action)
    self._returns[-1] += float(timestep.reward)
    self._lengths[-1] += 1
    if not timestep.last():
      self.timestep = timestep
    elif self._num_left:
      self._begin()
    else:
      self.are_over = True
    return timestep

  def result(self) -> dict[str, float]:
    """What `evaluate` returns."""
    return {
      "episode_return": float(np.mean(self._returns)),
      "episode_return_std": float(np.std(self._returns)),
      "episode_return_min": float(np.min(self._returns)),
      "episode_return_max": float(np.max(self._returns)),
      "episode_length": float(np.mean(self._lengths)),
      "episodes": float(len(self._returns)),
    }
