"""Evaluation: how well a policy does, without learning or exploring."""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np

from acme_qsm.experiments import environments
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.records.run_records import RunRecords


@dataclasses.dataclass(frozen=True)
class EvaluationSchedule:
  """When a run is evaluated: every so many environment steps, and at its end.

  Attributes:
    every: environment steps between evaluations, positive.
    num_episodes: episodes of each evaluation; 0 for no evaluation.
    total_steps: environment steps of the whole run.
  """

  every: int
  num_episodes: int
  total_steps: int

  def __post_init__(self):
    if self.every < 1:
      raise ValueError(f"eval_every must be positive, got {self.every}.")
    if self.num_episodes < 0:
      raise ValueError(
        f"num_eval_episodes must not be negative, got {self.num_episodes}."
      )

  def is_due(self, actor_steps: int, evaluated_at: int) -> bool:
    """Whether it is time for an evaluation.

    Args:
      actor_steps: environment steps made; the last ones only once all that was
        to be learned of them is learned.
      evaluated_at: those at the last evaluation, -1 for none.
    """
    if not self.num_episodes or actor_steps <= max(evaluated_at, 0):
      return False
    return (
      actor_steps >= self.total_steps
      or actor_steps // self.every > max(evaluated_at, 0) // self.every
    )


class Evaluator:
  """Evaluates a run and records the results.

  Attributes:
    evaluated_at: the environment step of the last evaluation, -1 for none.
    last: what the last evaluation of this process gave; empty for none.
  """

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
    self._actor = actor
    self._make_environment = make_environment
    self._num_episodes = num_episodes
    self._records = records
    self._title = title
    self._note = note
    self._logger = records.logger("evaluator", ACTOR_STEPS)
    self.evaluated_at = evaluated_at
    self.last: dict[str, float] = {}

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
    with environments.opened(
      lambda: self._make_environment(steps)
    ) as environment:
      result = evaluate(
        environment, self._actor, self._num_episodes, should_stop
      )
    if result is None:
      return False
    self.evaluated_at, self.last = steps, result
    self._logger.write({**counted, **result})
    self._note(f"{steps:>9,} environment steps: {describe(result)}")
    self._records.draw_curve(self._title)
    return True

  def close(self) -> None:
    """Closes the log."""
    self._logger.close()


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
  returns, lengths = [], []
  for _ in range(num_episodes):
    timestep = environment.reset()
    actor.observe_first(timestep)
    episode_return, length = 0.0, 0
    while not timestep.last():
      action = actor.select_action(timestep.observation)
      timestep = environment.step(action)
      actor.observe(action, timestep)
      episode_return += float(timestep.reward)
      length += 1
      if should_stop():
        return None
    returns.append(episode_return)
    lengths.append(length)
  return {
    "episode_return": float(np.mean(returns)),
    "episode_return_std": float(np.std(returns)),
    "episode_return_min": float(np.min(returns)),
    "episode_return_max": float(np.max(returns)),
    "episode_length": float(np.mean(lengths)),
    "episodes": float(num_episodes),
  }
