"""dm_control's tasks as environments in the form that agents here expect."""

import difflib
import warnings
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dm_env
import numpy as np
from acme import wrappers

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


def validate_task(task: str) -> None:
  """Raises ValueError, with the nearest names, unless the task exists."""
  if task in TASKS:
    return
  near = difflib.get_close_matches(task, TASKS, n=3, cutoff=0.5)
  hint = f"did you mean {' or '.join(near)}?" if near else f"one of {TASKS}."
  raise ValueError(f"Unknown task {task!r}; {hint}")


def make(task: str, seed: int) -> dm_env.Environment:
  """Makes an environment of the dm_control suite.

  Args:
    task: `domain:task`, such as `cartpole:swingup`; one of `TASKS`.
    seed: seed of the environment's initial states, in 0 .. 2^32 - 1.

  Returns:
    The environment: observations are one float32 vector, actions a float32
    vector in [-1, 1] (others are clipped), rewards in [0, 1] at every step,
    except those of lqr, which are negative. Actions of lqr, which has no bounds
    of its own, are forces in [-1, 1].

  Raises:
    ValueError: if the task is unknown; names similar ones.
  """
  validate_task(task)
  domain, name = task.split(":")
  environment = suite.load(
    domain, name, task_kwargs={"random": np.random.RandomState(seed)}
  )
  environment = wrappers.ConcatObservationWrapper(environment)
  environment = _UnitBounds(environment)
  environment = wrappers.CanonicalSpecWrapper(environment, clip=True)
  return wrappers.SinglePrecisionWrapper(environment)
