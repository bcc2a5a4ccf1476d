"""Networks as pure functions, made with Haiku.

Belongs here: layers, the denoiser, critics, and what makes them for an
environment. Does not: losses, optimisers, and what a method does with them.
"""

from acme_qsm.networks.factory import CriticFn
from acme_qsm.networks.factory import DenoiserFn
from acme_qsm.networks.factory import make_networks
from acme_qsm.networks.factory import QSMNetworks

__all__ = [
  "CriticFn",
  "DenoiserFn",
  "QSMNetworks",
  "make_networks",
]
