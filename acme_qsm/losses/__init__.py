"""Losses: pure functions of arrays, a file per theme.

Each returns one value per example [B]; the caller averages, weights or masks.
Belongs here: what a gradient is taken of. Does not: networks, sampling, keys.
"""

from acme_qsm.losses.score_matching import boltzmann_score_matching_loss
from acme_qsm.losses.score_matching import q_score_matching_loss
from acme_qsm.losses.value import categorical_double_q_loss
from acme_qsm.losses.value import clipped_double_q_loss
from acme_qsm.losses.value import hl_gauss_double_q_loss
from acme_qsm.losses.value import quantile_double_q_loss

__all__ = [
  "boltzmann_score_matching_loss",
  "categorical_double_q_loss",
  "clipped_double_q_loss",
  "hl_gauss_double_q_loss",
  "q_score_matching_loss",
  "quantile_double_q_loss",
]
