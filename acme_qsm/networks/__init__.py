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
  from acme_qsm.networks.critic_networks import CriticFn
  from acme_qsm.networks.critic_networks import CriticNetworks
  from acme_qsm.networks.critics import expected_value
  from acme_qsm.networks.critics import make_atoms
  from acme_qsm.networks.factory import DenoiserFn
  from acme_qsm.networks.factory import DiffusionNetworks
  from acme_qsm.networks.factory import make_networks
  from acme_qsm.networks.factory import QSMNetworks
  from acme_qsm.networks.gaussian import Gaussian
  from acme_qsm.networks.gaussian import GaussianNetworks
  from acme_qsm.networks.gaussian import make_gaussian_networks

__all__ = [
  "CriticFn",
  "CriticNetworks",
  "DenoiserConfig",
  "DenoiserFn",
  "DiffusionNetworks",
  "Gaussian",
  "GaussianNetworks",
  "NetworksConfig",
  "QSMNetworks",
  "expected_value",
  "make_atoms",
  "make_gaussian_networks",
  "make_networks",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "CriticFn": "acme_qsm.networks.critic_networks",
    "CriticNetworks": "acme_qsm.networks.critic_networks",
    "DenoiserConfig": "acme_qsm.networks.config",
    "DenoiserFn": "acme_qsm.networks.factory",
    "DiffusionNetworks": "acme_qsm.networks.factory",
    "Gaussian": "acme_qsm.networks.gaussian",
    "GaussianNetworks": "acme_qsm.networks.gaussian",
    "NetworksConfig": "acme_qsm.networks.config",
    "QSMNetworks": "acme_qsm.networks.factory",
    "expected_value": "acme_qsm.networks.critics",
    "make_atoms": "acme_qsm.networks.critics",
    "make_gaussian_networks": "acme_qsm.networks.gaussian",
    "make_networks": "acme_qsm.networks.factory",
  },
)
