"""Networks as pure functions, made with Haiku.

Belongs here: layers, the denoiser, critics, their configuration, and what makes
them for an environment. Does not: losses, optimisers, and what a method does
with them.
"""

from acme_qsm.networks.config import DenoiserConfig
from acme_qsm.networks.config import NetworksConfig
from acme_qsm.networks.factory import CriticFn
from acme_qsm.networks.factory import DenoiserFn
from acme_qsm.networks.factory import DiffusionNetworks
from acme_qsm.networks.factory import make_networks

__all__ = [
  "CriticFn",
  "DenoiserConfig",
  "DenoiserFn",
  "DiffusionNetworks",
  "NetworksConfig",
  "make_networks",
]
