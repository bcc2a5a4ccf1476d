"""What can be asked for: tasks by name, and how often an action is repeated.

Told without loading dm_control, which takes as long as all else that a command
line needs to refuse a task.
"""

import numpy as np

from acme_qsm import configuration

_SUITE = {
  "acrobot": ("swingup", "swingup_sparse"),
  "ball_in_cup": ("catch",),
  "cartpole": (
    "balance",
    "balance_sparse",
    "swingup",
    "swingup_sparse",
    "two_poles",
    "three_poles",
  ),
  "cheetah": ("run",),
  "dog": ("stand", "walk", "trot", "run", "fetch"),
  "finger": ("spin", "turn_easy", "turn_hard"),
  "fish": ("upright", "swim"),
  "hopper": ("stand", "hop"),
  "humanoid": ("stand", "walk", "run", "run_pure_state"),
  "humanoid_CMU": ("stand", "walk", "run"),
  "lqr": ("lqr_2_1", "lqr_6_2"),
  "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
  "pendulum": ("swingup",),
  "point_mass": ("easy", "hard"),
  "quadruped": ("walk", "run", "escape", "fetch"),
  "reacher": ("easy", "hard"),
  "stacker": ("stack_2", "stack_4"),
  "swimmer": ("swimmer6", "swimmer15"),
  "walker": ("stand", "walk", "run"),
}

TASKS: tuple[str, ...] = tuple(
  f"{domain}:{name}" for domain, names in _SUITE.items() for name in names
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
