"""dm_control's tasks as environments in the form that agents here expect."""

import importlib
import logging
import os
import sys
import warnings
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_qsm.environments import wrappers
from acme_qsm.environments.tasks import validate_action_repeat
from acme_qsm.environments.tasks import validate_task

_RENDERER, _NO_RENDERER = "MUJOCO_GL", "disabled"


def _import_suite() -> Any:
  """Imports dm_control, without a renderer if the one asked for is not there.

  Training never renders.
  """
  with warnings.catch_warnings():
    # Without a display, GLFW warns when it is imported.
    warnings.filterwarnings("ignore", message=".*GLFW.*|.*X11.*")
    try:
      return importlib.import_module("dm_control.suite")
    except Exception as error:  # A broken renderer raises many kinds.
      renderer = os.environ.get(_RENDERER)
      if renderer in (None, _NO_RENDERER):
        raise
      reason = str(error).partition("\n")[0]
      for name in [*sys.modules]:
        # Some modules are half loaded.
        if name.partition(".")[0] == "dm_control":
          del sys.modules[name]
      os.environ[_RENDERER] = _NO_RENDERER
      suite = importlib.import_module("dm_control.suite")
  logging.warning(
    "%s=%s: there is no such renderer, and none is used: %s",
    *(_RENDERER, renderer, reason),
  )
  return suite


suite = _import_suite()


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
    # The tasks only document these bounds.
    environment = wrappers.EnvironmentWrapper(
      environment,
      rewards=specs.BoundedArray((), np.float64, 0.0, 1.0, name="reward"),
    )
  # Innermost, so that the other wrappers work once per action.
  if action_repeat > 1:
    environment = wrappers.ActionRepeat(environment, action_repeat)
  environment = wrappers.FloatObservations(environment)
  if domain == "lqr":
    environment = wrappers.BoundedActions(environment, -1.0, 1.0)
  environment = wrappers.CanonicalActions(environment)
  return wrappers.SinglePrecision(environment)
