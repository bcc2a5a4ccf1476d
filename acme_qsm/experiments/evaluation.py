"""Evaluation: how well a policy does, without learning or exploring."""

import contextlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np

from acme_qsm.experiments import environment_groups
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.records.run_records import RunRecords


class Evaluations:
  """A seed's evaluations: in which environments, and what they gave.

  Attributes:
    evaluated_at: the environment step of the last evaluation, -1 for none.
    last: what the last evaluation of this process gave; empty for none.
  """

  def __init__(
    self,
    make_environment: Callable[[int], dm_env.Environment],
    records: RunRecords,
    evaluated_at: int = -1,
  ):
    """Initialises the evaluations.

    Args:
      make_environment: environment steps made -> an evaluation's environment.
      records: where results are kept.
      evaluated_at: the environment step of the last evaluation before.
    """
    self._make_environment = make_environment
    self._logger = records.logger("evaluator", ACTOR_STEPS)
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


def evaluate(
  actor: Any,
  evaluations: Mapping[int, Evaluations],
  num_episodes: int,
  get_counts: Callable[[int], Mapping[str, float]],
  should_stop: Callable[[], bool],
) -> dict[int, dict[str, float]] | None:
  """Evaluates the newest parameters of some seeds, and records the results.

  Args:
    actor: an `agents.Actor` or `OneActor` that does not explore.
    evaluations: of the seeds that are evaluated, by the actor's numbers of
      them; at least one.
    num_episodes: episodes of each seed, at least 1.
    get_counts: tells what a seed had counted when its parameters were fetched;
      called after that.
    should_stop: asked after every step; where it says so, evaluation ends
      without a result.

  Returns:
    By the same numbers what `run_episodes` returns; None if stopped.
  """
  actor.update(wait=True)
  counted = {index: dict(get_counts(index)) for index in evaluations}
  with contextlib.ExitStack() as stack:
    environments = {
      index: stack.enter_context(each.opened(int(counted[index][ACTOR_STEPS])))
      for index, each in evaluations.items()
    }
    results = run_episodes(actor, environments, num_episodes, should_stop)
  for index, result in (results or {}).items():
    evaluations[index].record(counted[index], result)
  return results


def run_episodes(
  actor: Any,
  environments: Mapping[int, dm_env.Environment],
  num_episodes: int,
  should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, dict[str, float]] | None:
  """Runs whole episodes of some seeds, and sums their rewards.

  Args:
    actor: acts for all S seeds; its parameters are left as they are.
    environments: the environment of each seed that is evaluated, by the actor's
      number of it; at least one.
    num_episodes: episodes of each seed to run, at least 1.
    should_stop: asked after every step of all; where it says so, evaluation
      ends without a result.

  Returns:
    By the same numbers, over a seed's episodes, the mean, standard deviation,
    lowest and highest of the undiscounted return, their mean length and number;
    None if stopped.
  """
  episodes = {
    seed: _Episodes(environment, num_episodes)
    for seed, environment in environments.items()
  }
  while any(not each.are_over for each in episodes.values()):
    observations = [[] for _ in range(actor.num_seeds)]
    for seed, each in episodes.items():
      if each.are_over:
        continue
      if each.timestep.first():
        actor.observe_first(each.timestep, seed)
      observations[seed] = [each.timestep.observation]
    actions = actor.select_actions(observations)
    for seed, each in episodes.items():
      if observations[seed]:
        (action,) = actions[seed]
        actor.observe(action, each.step(action), seed)
    if should_stop():
      return None
  return {seed: each.result() for seed, each in episodes.items()}


def describe(result: Mapping[str, float]) -> str:
  """Says in a phrase what an evaluation of one seed gave."""
  return (
    f"evaluation return {result['episode_return']:.1f} ± "
    f"{result['episode_return_std']:.1f} "
    f"({result['episodes']:.0f} episodes, "
    f"{result['episode_return_min']:.1f} to "
    f"{result['episode_return_max']:.1f})"
  )


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
    """What `run_episodes` says of a seed."""
    return {
      "episode_return": float(np.mean(self._returns)),
      "episode_return_std": float(np.std(self._returns)),
      "episode_return_min": float(np.min(self._returns)),
      "episode_return_max": float(np.max(self._returns)),
      "episode_length": float(np.mean(self._lengths)),
      "episodes": float(len(self._returns)),
    }
