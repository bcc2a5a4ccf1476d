"""Evaluation: how well a policy does, without learning or exploring."""

from collections.abc import Callable
from collections.abc import Mapping

import dm_env
import numpy as np
from acme import core


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
  actor: core.Actor,
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
