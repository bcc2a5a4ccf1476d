"""Diffusion-model policies trained from rewards, Acme style.

What is imported here runs on JAX alone. `QSMBuilder` needs the `acme` extra and
is loaded when first touched.
"""

import importlib
import typing

from acme_qsm import diffusion
from acme_qsm import losses
from acme_qsm.config import QSMConfig
from acme_qsm.learner_core import LearnerCore
from acme_qsm.learner_core import make_learner_core
from acme_qsm.learner_core import TrainingState
from acme_qsm.networks import make_networks
from acme_qsm.networks import QSMNetworks
from acme_qsm.policy import make_policy
from acme_qsm.policy import PolicyParams
from acme_qsm.types import Transition

if typing.TYPE_CHECKING:
  from acme_qsm.builder import QSMBuilder

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

# Names that need Acme, and the modules that define them.
_ACME_NAMES = {"QSMBuilder": "acme_qsm.builder"}


def __dir__() -> list[str]:
  return sorted({*globals(), *_ACME_NAMES})


def __getattr__(name: str):
  if name not in _ACME_NAMES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  try:
    module = importlib.import_module(_ACME_NAMES[name])
  except ModuleNotFoundError as error:
    if error.name and error.name.split(".")[0] in ("acme_qsm", "jax"):
      raise
    raise ModuleNotFoundError(
      f"acme_qsm.{name} needs the package {error.name!r}: install the extra "
      "`acme` (pip install 'acme-qsm[acme]', on Python 3.10).",
      name=error.name,
    ) from error
  return getattr(module, name)
