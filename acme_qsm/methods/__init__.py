"""Methods: how a policy is learnt, one file each, and their registry.

Belongs here: a method's losses, its state, its learner and its policy. Does
not: its configuration, which is in `configs`, and what a second method would
write again.
"""

from acme_qsm.methods.registry import find
from acme_qsm.methods.registry import make_learner_core
from acme_qsm.methods.registry import make_networks
from acme_qsm.methods.registry import make_policy
from acme_qsm.methods.registry import METHODS

__all__ = [
  "METHODS",
  "find",
  "make_learner_core",
  "make_networks",
  "make_policy",
]
