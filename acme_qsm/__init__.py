"""Diffusion-model policies trained from rewards, Acme style.

What is named here is loaded when first touched. `QSMBuilder` needs the `acme`
extra; all else runs on JAX alone.
"""

import typing

from acme_qsm import lazy

if typing.TYPE_CHECKING:
  from acme_qsm import diffusion
  from acme_qsm import losses
  from acme_qsm.agents.builder import QSMBuilder
  from acme_qsm.core.acting import make_policy
  from acme_qsm.core.acting import PolicyParams
  from acme_qsm.core.config import QSMConfig
  from acme_qsm.core.learner_core import LearnerCore
  from acme_qsm.core.learner_core import make_learner_core
  from acme_qsm.core.learner_core import TrainingState
  from acme_qsm.networks import make_networks
  from acme_qsm.networks import QSMNetworks
  from acme_qsm.types import Transition

__all__ = [
  "LearnerCore",
  "PolicyParams",
  "QSMBuilder",
  "QSMConfig",
  "QSMNetworks",
  "TrainingState",
  "Transition",
  "diffusion",
  "losses",
  "make_learner_core",
  "make_networks",
  "make_policy",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "LearnerCore": "acme_qsm.core.learner_core",
    "PolicyParams": "acme_qsm.core.acting",
    "QSMBuilder": "acme_qsm.agents.builder",
    "QSMConfig": "acme_qsm.core.config",
    "QSMNetworks": "acme_qsm.networks",
    "TrainingState": "acme_qsm.core.learner_core",
    "Transition": "acme_qsm.types",
    "diffusion": "acme_qsm.diffusion",
    "losses": "acme_qsm.losses",
    "make_learner_core": "acme_qsm.core.learner_core",
    "make_networks": "acme_qsm.networks",
    "make_policy": "acme_qsm.core.acting",
  },
)
