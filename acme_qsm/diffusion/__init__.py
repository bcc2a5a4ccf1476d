"""Diffusion over actions: pure functions of arrays and keys.

Belongs here: noise schedules, forward noising, samplers,
their chains and log-probabilities, reverse samples.
Does not: losses, networks, and anything that knows of observations or rewards.
Index t = 0 is the least noisy denoising step: see `schedules`.
"""

import typing

from acme_qsm import lazy

if typing.TYPE_CHECKING:
  from acme_qsm.diffusion.chains import chain_log_prob
  from acme_qsm.diffusion.chains import sample_chain
  from acme_qsm.diffusion.reverse import reverse_samples
  from acme_qsm.diffusion.reverse import stein_kernel
  from acme_qsm.diffusion.samplers import DenoiseFn
  from acme_qsm.diffusion.samplers import sample
  from acme_qsm.diffusion.samplers import sample_langevin
  from acme_qsm.diffusion.samplers import sample_posterior
  from acme_qsm.diffusion.samplers import ScoreFn
  from acme_qsm.diffusion.schedules import add_noise
  from acme_qsm.diffusion.schedules import make_betas
  from acme_qsm.diffusion.schedules import make_schedule
  from acme_qsm.diffusion.schedules import NoiseSchedule
  from acme_qsm.diffusion.schedules import remove_noise
  from acme_qsm.diffusion.schedules import ScheduleName
  from acme_qsm.diffusion.transitions import PosteriorVariance
  from acme_qsm.diffusion.transitions import transition
  from acme_qsm.diffusion.transitions import TransitionName

__all__ = [
  "DenoiseFn",
  "NoiseSchedule",
  "PosteriorVariance",
  "ScheduleName",
  "ScoreFn",
  "TransitionName",
  "add_noise",
  "chain_log_prob",
  "make_betas",
  "make_schedule",
  "remove_noise",
  "reverse_samples",
  "sample",
  "sample_chain",
  "sample_langevin",
  "sample_posterior",
  "stein_kernel",
  "transition",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "DenoiseFn": "acme_qsm.diffusion.samplers",
    "NoiseSchedule": "acme_qsm.diffusion.schedules",
    "PosteriorVariance": "acme_qsm.diffusion.transitions",
    "ScheduleName": "acme_qsm.diffusion.schedules",
    "ScoreFn": "acme_qsm.diffusion.samplers",
    "TransitionName": "acme_qsm.diffusion.transitions",
    "add_noise": "acme_qsm.diffusion.schedules",
    "chain_log_prob": "acme_qsm.diffusion.chains",
    "make_betas": "acme_qsm.diffusion.schedules",
    "make_schedule": "acme_qsm.diffusion.schedules",
    "remove_noise": "acme_qsm.diffusion.schedules",
    "reverse_samples": "acme_qsm.diffusion.reverse",
    "sample": "acme_qsm.diffusion.samplers",
    "sample_chain": "acme_qsm.diffusion.chains",
    "sample_langevin": "acme_qsm.diffusion.samplers",
    "sample_posterior": "acme_qsm.diffusion.samplers",
    "stein_kernel": "acme_qsm.diffusion.reverse",
    "transition": "acme_qsm.diffusion.transitions",
  },
)
