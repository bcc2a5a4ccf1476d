"""Methods: how a policy is learnt, one file each, and their registry.

Belongs here: a method's configuration, its policy loss, what it adds to the
training state, its presets. Does not: what a second method would write again.
"""

from acme_qsm.methods.registry import make_learner_core
from acme_qsm.methods.registry import make_networks
from acme_qsm.methods.registry import make_policy
from acme_qsm.methods.registry import METHODS
from acme_qsm.methods.registry import name_of

__all__ = [
  "METHODS",
  "make_learner_core",
  "make_networks",
  "make_policy",
  "name_of",
]
