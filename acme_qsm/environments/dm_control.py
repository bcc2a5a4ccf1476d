"""dm_control's tasks as environments in the form that agents here expect."""

import warnings

import dm_env
import numpy as np

from acme_qsm import configuration
from acme_qsm.environments import wrappers

with warnings.catch_warnings():
  # Without a display, GLFW warns when it is imported; training never renders.
  warnings.filterwarnings("ignore", message=".*GLFW.*|.*X11.*")
  from dm_control import suite

TASKS: tuple[str, ...] = tuple(
  f"{domain}:{name}" for domain, name in suite.ALL_TASKS
)
"""Every task of the dm_control suite, as `domain:task`."""


def validate_task(task: str) -> None:
  """Raises ValueError, with the nearest names, unless the task exists."""
  configuration.require_known("task", task, TASKS)


def validate_action_repeat(action_repeat: int) -> None:
  """Raises ValueError unless an action can be repeated that often."""
  if isinstance(action_repeat, bool) or not (
    isinstance(action_repeat, int | np.integer) and action_repeat >= 1
  ):
    raise ValueError(
      f"action_repeat must be an integer of at least 1, got {action_repeat!r}."
    )


def make(task: str, seed: int, *, action_repeat: int = 1) -> dm_env.Environment:
  """Makes an environment of the dm_control suite.

  Args:
    task: `domain:task`, such as `cartpole:swingup`; one of `TASKS`.
    seed: seed of the environment's initial states, in 0 .. 2^32 - 1.
    action_repeat: frames, steps of the task, that each step takes with one
      action; their rewards are summed. Episodes keep their frames, so that they
      have 1 / action_repeat as many steps.

  Returns:
    The environment: observations are one float32 vector, actions a float32
    vector in [-1, 1] (others are clipped), rewards in [0, action_repeat] at
    every step, which its reward spec states; except those of lqr, which are
    negative. Actions of lqr, which has no bounds of its own, are forces in
    [-1, 1].

  Raises:
    ValueError: if the task is unknown (names similar ones) or action_repeat is
      not a positive integer.
  """
  validate_task(task)
  validate_action_repeat(action_repeat)
  domain, name = task.split(":")
  environment = suite.load(
    domain, name, task_kwargs={"random": np.random.RandomState(seed)}
  )
  if domain != "lqr":
    environment = wrappers.UnitRewards(environment)
  # Around the task itself: what else there is to do is done once per action.
  if action_repeat > 1:
    environment = wrappers.ActionRepeat(environment, action_repeat)
  environment = wrappers.ConcatenatedObservations(environment)
  environment = wrappers.UnitBounds(environment)
  environment = wrappers.CanonicalActions(environment)
  return wrappers.SinglePrecision(environment)
