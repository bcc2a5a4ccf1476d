"""dm_control's tasks as environments in the form that agents here expect."""

import warnings
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dm_env
import numpy as np
from acme import wrappers
from dm_env import specs

from acme_qsm import configuration

with warnings.catch_warnings():
  # Without a display, GLFW warns when it is imported; training never renders.
  warnings.filterwarnings("ignore", message=".*GLFW.*|.*X11.*")
  from dm_control import suite

TASKS: tuple[str, ...] = tuple(
  f"{domain}:{name}" for domain, name in suite.ALL_TASKS
)
"""Every task of the dm_control suite, as `domain:task`."""

# What dm_control gives as the bounds of an actuator without any.
_UNBOUNDED = 1e10


class _UnitBounds(wrappers.EnvironmentWrapper):
  """Bounds what MuJoCo leaves unbounded (its +-1e10) to [-1, 1]."""

  def action_spec(self) -> Any:
    """The actions' spec, with bounds."""
    spec: Any = self._environment.action_spec()
    unbounded = (spec.minimum <= -_UNBOUNDED) | (spec.maximum >= _UNBOUNDED)
    return spec.replace(
      minimum=np.where(unbounded, -1.0, spec.minimum),
      maximum=np.where(unbounded, 1.0, spec.maximum),
    )


class _UnitRewards(wrappers.EnvironmentWrapper):
  """States that rewards are in [0, 1], as dm_control's tasks only document."""

  def reward_spec(self) -> specs.BoundedArray:
    """The rewards' spec, with bounds."""
    return specs.BoundedArray((), np.float64, 0.0, 1.0, name="reward")


class _ActionRepeat(wrappers.ActionRepeatWrapper):
  """Repeats actions; the sum of the rewards has bounds if each has."""

  def reward_spec(self) -> Any:
    """The spec of a sum of rewards."""
    spec = self._environment.reward_spec()
    if not isinstance(spec, specs.BoundedArray):
      return spec
    # Of a sum that may have fewer terms: an episode can end in the middle.
    return spec.replace(
      minimum=np.minimum(spec.minimum, spec.minimum * self._num_repeats),
      maximum=np.maximum(spec.maximum, spec.maximum * self._num_repeats),
    )


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
  environment = wrappers.ConcatObservationWrapper(environment)
  environment = _UnitBounds(environment)
  environment = wrappers.CanonicalSpecWrapper(environment, clip=True)
  if domain != "lqr":
    environment = _UnitRewards(environment)
  if action_repeat > 1:
    environment = _ActionRepeat(environment, action_repeat)
  return wrappers.SinglePrecisionWrapper(environment)
