"""What all methods share: configuration, the actor-critic step, acting.

Belongs here: pieces that two methods or more need, as pure functions that can
be called by themselves. Does not: a method's name, or an option that only one
method reads.
"""

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
