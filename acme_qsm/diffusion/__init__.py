"""Diffusion over actions: pure functions of arrays and keys.

Belongs here: noise schedules, forward noising, samplers and what they share.
Does not: losses, networks, and anything that knows of observations or rewards.
Index t = 0 is the least noisy denoising step: see `schedules`.
"""

from acme_qsm.diffusion.samplers import DenoiseFn
from acme_qsm.diffusion.samplers import sample
from acme_qsm.diffusion.schedules import add_noise
from acme_qsm.diffusion.schedules import make_schedule
from acme_qsm.diffusion.schedules import NoiseSchedule
from acme_qsm.diffusion.schedules import ScheduleName

__all__ = [
  "DenoiseFn",
  "NoiseSchedule",
  "ScheduleName",
  "add_noise",
  "make_schedule",
  "sample",
]
