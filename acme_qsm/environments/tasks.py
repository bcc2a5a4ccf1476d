"""What can be asked for: tasks by name, and how often an action is repeated.

Told without loading dm_control, which takes as long as all else that a command
line needs to refuse a task.
"""

import numpy as np

from acme_qsm import configuration

TASKS: tuple[str, ...] = (
  "acrobot:swingup",
  "acrobot:swingup_sparse",
  "ball_in_cup:catch",
  "cartpole:balance",
  "cartpole:balance_sparse",
  "cartpole:swingup",
  "cartpole:swingup_sparse",
  "cartpole:two_poles",
  "cartpole:three_poles",
  "cheetah:run",
  "dog:stand",
  "dog:walk",
  "dog:trot",
  "dog:run",
  "dog:fetch",
  "finger:spin",
  "finger:turn_easy",
  "finger:turn_hard",
  "fish:upright",
  "fish:swim",
  "hopper:stand",
  "hopper:hop",
  "humanoid:stand",
  "humanoid:walk",
  "humanoid:run",
  "humanoid:run_pure_state",
  "humanoid_CMU:stand",
  "humanoid_CMU:walk",
  "humanoid_CMU:run",
  "lqr:lqr_2_1",
  "lqr:lqr_6_2",
  "manipulator:bring_ball",
  "manipulator:bring_peg",
  "manipulator:insert_ball",
  "manipulator:insert_peg",
  "pendulum:swingup",
  "point_mass:easy",
  "point_mass:hard",
  "quadruped:walk",
  "quadruped:run",
  "quadruped:escape",
  "quadruped:fetch",
  "reacher:easy",
  "reacher:hard",
  "stacker:stack_2",
  "stacker:stack_4",
  "swimmer:swimmer6",
  "swimmer:swimmer15",
  "walker:stand",
  "walker:walk",
  "walker:run",
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
