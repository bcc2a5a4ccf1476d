"""What all methods share: configuration, the actor-critic step, acting.

Belongs here: pieces that two methods or more need, as pure functions that can
be called by themselves. Does not: a method's name, or an option that only one
method reads.
"""

import typing

from acme_qsm import lazy

if typing.TYPE_CHECKING:
  from acme_qsm.core.acting import Policy
  from acme_qsm.core.acting import PolicyParams
  from acme_qsm.core.config import ActorCriticConfig
  from acme_qsm.core.config import DiffusionConfig
  from acme_qsm.core.learner_core import LearnerCore
  from acme_qsm.core.learner_core import make_learner_core
  from acme_qsm.core.learner_core import TrainingState
  from acme_qsm.core.method import Context
  from acme_qsm.core.method import Method

__all__ = [
  "ActorCriticConfig",
  "Context",
  "DiffusionConfig",
  "LearnerCore",
  "Method",
  "Policy",
  "PolicyParams",
  "TrainingState",
  "make_learner_core",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "ActorCriticConfig": "acme_qsm.core.config",
    "Context": "acme_qsm.core.method",
    "DiffusionConfig": "acme_qsm.core.config",
    "LearnerCore": "acme_qsm.core.learner_core",
    "Method": "acme_qsm.core.method",
    "Policy": "acme_qsm.core.acting",
    "PolicyParams": "acme_qsm.core.acting",
    "TrainingState": "acme_qsm.core.learner_core",
    "make_learner_core": "acme_qsm.core.learner_core",
  },
)
