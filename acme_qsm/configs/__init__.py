"""What methods can be told: their configurations and presets, without JAX.

Belongs here: a file for each method's configuration, and for each part that
several extend. Command lines read them, and refuse what cannot be, before JAX
is loaded. Does not: what is computed with them, which is in the rooms above.
"""

from collections.abc import Mapping

from acme_qsm.configs import dipo
from acme_qsm.configs import dpmd
from acme_qsm.configs import gaussian
from acme_qsm.configs import idem
from acme_qsm.configs import qsm
from acme_qsm.configs import qvpo
from acme_qsm.configs import sdac
from acme_qsm.configs.actor_critic import ActorCriticConfig

PRESETS: Mapping[str, Mapping[str, ActorCriticConfig]] = {
  "qsm": qsm.PRESETS,
  "sdac": sdac.PRESETS,
  "idem": idem.PRESETS,
  "dpmd": dpmd.PRESETS,
  "qvpo": qvpo.PRESETS,
  "dipo": dipo.PRESETS,
  "gaussian": gaussian.PRESETS,
}
"""By each method's name its presets by name, of which one is "default"."""
