"""Environments in the form that agents here expect.

Belongs here: what makes tasks by their names, and wrappers. Does not: what acts
in them.
"""

import typing

from acme_qsm import lazy

if typing.TYPE_CHECKING:
  from acme_qsm.environments.adapter import adapt
  from acme_qsm.environments.dm_control import make
  from acme_qsm.environments.pool import Pool
  from acme_qsm.environments.tasks import TASKS
  from acme_qsm.environments.tasks import validate_action_repeat
  from acme_qsm.environments.tasks import validate_task

__all__ = [
  "TASKS",
  "Pool",
  "adapt",
  "make",
  "validate_action_repeat",
  "validate_task",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "Pool": "acme_qsm.environments.pool",
    "TASKS": "acme_qsm.environments.tasks",
    "adapt": "acme_qsm.environments.adapter",
    "make": "acme_qsm.environments.dm_control",
    "validate_action_repeat": "acme_qsm.environments.tasks",
    "validate_task": "acme_qsm.environments.tasks",
  },
)
