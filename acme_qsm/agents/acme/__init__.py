"""Acme's own agents: any builder of dm-acme 0.4.0, and SAC and TD3 by name.

Belongs here: the adapter for those builders, and what the launchers can be told
of Acme's agents. Only `adapter` loads Acme, and it is itself loaded late, so
that a command line answers without.
"""

from acme_qsm.agents.acme.agent import AcmeAgentBuilder
from acme_qsm.agents.acme.agent import AcmeConfig
from acme_qsm.agents.acme.agent import make_networks
from acme_qsm.agents.acme.sac import AcmeSACConfig
from acme_qsm.agents.acme.td3 import AcmeTD3Config

__all__ = [
  "CONFIGS",
  "AcmeAgentBuilder",
  "AcmeConfig",
  "AcmeSACConfig",
  "AcmeTD3Config",
  "make_networks",
]

CONFIGS: dict[str, type[AcmeConfig]] = {
  each.agent_name(): each for each in (AcmeSACConfig, AcmeTD3Config)
}
"""The configurations of Acme's agents by their names."""
