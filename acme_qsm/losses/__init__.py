"""Losses: pure functions of arrays, a file per theme.

Each returns one value per example [B]; the caller averages, weights or masks.
Belongs here: what a gradient is taken of, and the weights in it. Does not:
networks, sampling, keys.
"""

import typing

from acme_qsm import lazy

if typing.TYPE_CHECKING:
  from acme_qsm.losses.maximum_entropy import entropy_temperature_loss
  from acme_qsm.losses.maximum_entropy import soft_policy_loss
  from acme_qsm.losses.maximum_entropy import squashed_log_prob
  from acme_qsm.losses.noised_energy import noised_energy_action
  from acme_qsm.losses.policy_gradient import diffusion_policy_gradient_loss
  from acme_qsm.losses.score_matching import boltzmann_score_matching_loss
  from acme_qsm.losses.score_matching import q_score_matching_loss
  from acme_qsm.losses.value import categorical_double_q_loss
  from acme_qsm.losses.value import clipped_double_q_loss
  from acme_qsm.losses.value import hl_gauss_double_q_loss
  from acme_qsm.losses.value import quantile_double_q_loss
  from acme_qsm.losses.value import smooth_value
  from acme_qsm.losses.value import take_lowest
  from acme_qsm.losses.weighted_noise_matching import effective_sample_size
  from acme_qsm.losses.weighted_noise_matching import exponential_weights
  from acme_qsm.losses.weighted_noise_matching import normalize_q_value
  from acme_qsm.losses.weighted_noise_matching import (
    reverse_sampling_score_matching_loss,
  )
  from acme_qsm.losses.weighted_noise_matching import self_normalized_weights
  from acme_qsm.losses.weighted_noise_matching import standardize
  from acme_qsm.losses.weighted_noise_matching import temperature_loss
  from acme_qsm.losses.weighted_noise_matching import weight_kl
  from acme_qsm.losses.weighted_noise_matching import weighted_denoising_loss

__all__ = [
  "boltzmann_score_matching_loss",
  "categorical_double_q_loss",
  "clipped_double_q_loss",
  "diffusion_policy_gradient_loss",
  "effective_sample_size",
  "entropy_temperature_loss",
  "exponential_weights",
  "hl_gauss_double_q_loss",
  "noised_energy_action",
  "normalize_q_value",
  "q_score_matching_loss",
  "quantile_double_q_loss",
  "reverse_sampling_score_matching_loss",
  "self_normalized_weights",
  "smooth_value",
  "soft_policy_loss",
  "squashed_log_prob",
  "standardize",
  "take_lowest",
  "temperature_loss",
  "weight_kl",
  "weighted_denoising_loss",
]

_ENTROPY = "acme_qsm.losses.maximum_entropy"
_WEIGHTED = "acme_qsm.losses.weighted_noise_matching"

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "boltzmann_score_matching_loss": "acme_qsm.losses.score_matching",
    "categorical_double_q_loss": "acme_qsm.losses.value",
    "clipped_double_q_loss": "acme_qsm.losses.value",
    "diffusion_policy_gradient_loss": "acme_qsm.losses.policy_gradient",
    "effective_sample_size": _WEIGHTED,
    "entropy_temperature_loss": _ENTROPY,
    "exponential_weights": _WEIGHTED,
    "hl_gauss_double_q_loss": "acme_qsm.losses.value",
    "noised_energy_action": "acme_qsm.losses.noised_energy",
    "normalize_q_value": _WEIGHTED,
    "q_score_matching_loss": "acme_qsm.losses.score_matching",
    "quantile_double_q_loss": "acme_qsm.losses.value",
    "reverse_sampling_score_matching_loss": _WEIGHTED,
    "self_normalized_weights": _WEIGHTED,
    "smooth_value": "acme_qsm.losses.value",
    "soft_policy_loss": _ENTROPY,
    "squashed_log_prob": _ENTROPY,
    "take_lowest": "acme_qsm.losses.value",
    "standardize": _WEIGHTED,
    "temperature_loss": _WEIGHTED,
    "weight_kl": _WEIGHTED,
    "weighted_denoising_loss": _WEIGHTED,
  },
)
