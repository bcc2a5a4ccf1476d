"""Networks as pure functions, made with Haiku.

Belongs here: layers, the denoiser, critics, their configuration, and what makes
them for an environment. Does not: losses, optimisers, and what a method does
with them.
"""

import typing

from acme_qsm import lazy

if typing.TYPE_CHECKING:
  from acme_qsm.networks.config import DenoiserConfig
  from acme_qsm.networks.config import NetworksConfig
  from acme_qsm.networks.critics import expected_value
  from acme_qsm.networks.critics import make_atoms
  from acme_qsm.networks.factory import CriticFn
  from acme_qsm.networks.factory import DenoiserFn
  from acme_qsm.networks.factory import DiffusionNetworks
  from acme_qsm.networks.factory import make_networks
  from acme_qsm.networks.factory import QSMNetworks

__all__ = [
  "CriticFn",
  "DenoiserConfig",
  "DenoiserFn",
  "DiffusionNetworks",
  "NetworksConfig",
  "QSMNetworks",
  "expected_value",
  "make_atoms",
  "make_networks",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "CriticFn": "acme_qsm.networks.factory",
    "DenoiserConfig": "acme_qsm.networks.config",
    "DenoiserFn": "acme_qsm.networks.factory",
    "DiffusionNetworks": "acme_qsm.networks.factory",
    "NetworksConfig": "acme_qsm.networks.config",
    "QSMNetworks": "acme_qsm.networks.factory",
    "expected_value": "acme_qsm.networks.critics",
    "make_atoms": "acme_qsm.networks.critics",
    "make_networks": "acme_qsm.networks.factory",
  },
)
