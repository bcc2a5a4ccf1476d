"""Diffusion-model policies trained from rewards, Acme style.

What is named here is loaded when first touched. `AcmeBuilder` needs the `acme`
extra; all else runs on JAX alone.
"""

import typing

from acme_qsm import lazy

__version__ = "0.1.0"

if typing.TYPE_CHECKING:
  from acme_qsm import diffusion
  from acme_qsm import losses
  from acme_qsm import methods
  from acme_qsm.agents.acme.adapter import AcmeBuilder
  from acme_qsm.agents.builder import DiffusionBuilder
  from acme_qsm.agents.builder import QSMBuilder
  from acme_qsm.core import DiffusionConfig
  from acme_qsm.core import LearnerCore
  from acme_qsm.core import Method
  from acme_qsm.core import PolicyParams
  from acme_qsm.core import TrainingState
  from acme_qsm.methods import make_learner_core
  from acme_qsm.methods import make_networks
  from acme_qsm.methods import make_policy
  from acme_qsm.methods.dipo import DIPOConfig
  from acme_qsm.methods.dpmd import DPMDConfig
  from acme_qsm.methods.gaussian import GaussianConfig
  from acme_qsm.methods.idem import IDEMConfig
  from acme_qsm.methods.qsm import QSMConfig
  from acme_qsm.methods.qvpo import QVPOConfig
  from acme_qsm.methods.sdac import SDACConfig
  from acme_qsm.networks import DiffusionNetworks
  from acme_qsm.networks import QSMNetworks
  from acme_qsm.types import ArraySpec
  from acme_qsm.types import EnvironmentSpec
  from acme_qsm.types import Transition

__all__ = [
  "AcmeBuilder",
  "ArraySpec",
  "DIPOConfig",
  "DPMDConfig",
  "DiffusionBuilder",
  "DiffusionConfig",
  "DiffusionNetworks",
  "EnvironmentSpec",
  "GaussianConfig",
  "IDEMConfig",
  "LearnerCore",
  "Method",
  "PolicyParams",
  "QSMBuilder",
  "QSMConfig",
  "QSMNetworks",
  "QVPOConfig",
  "SDACConfig",
  "TrainingState",
  "Transition",
  "diffusion",
  "losses",
  "make_learner_core",
  "make_networks",
  "make_policy",
  "methods",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "ArraySpec": "acme_qsm.types",
    "AcmeBuilder": "acme_qsm.agents.acme.adapter",
    "DiffusionBuilder": "acme_qsm.agents.builder",
    "DiffusionNetworks": "acme_qsm.networks",
    "EnvironmentSpec": "acme_qsm.types",
    "DiffusionConfig": "acme_qsm.core",
    "LearnerCore": "acme_qsm.core",
    "Method": "acme_qsm.core",
    "PolicyParams": "acme_qsm.core",
    "QSMBuilder": "acme_qsm.agents.builder",
    "DIPOConfig": "acme_qsm.methods.dipo",
    "DPMDConfig": "acme_qsm.methods.dpmd",
    "GaussianConfig": "acme_qsm.methods.gaussian",
    "IDEMConfig": "acme_qsm.methods.idem",
    "QVPOConfig": "acme_qsm.methods.qvpo",
    "QSMConfig": "acme_qsm.methods.qsm",
    "SDACConfig": "acme_qsm.methods.sdac",
    "QSMNetworks": "acme_qsm.networks",
    "TrainingState": "acme_qsm.core",
    "Transition": "acme_qsm.types",
    "diffusion": "acme_qsm.diffusion",
    "losses": "acme_qsm.losses",
    "make_learner_core": "acme_qsm.methods",
    "make_networks": "acme_qsm.methods",
    "make_policy": "acme_qsm.methods",
    "methods": "acme_qsm.methods",
  },
)
