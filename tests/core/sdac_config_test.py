"""SDAC's configuration: what it refuses."""

import math
import re

import pytest

import acme_qsm


@pytest.mark.parametrize(
  ("field", "value", "others"),
  [
    ("num_reverse_samples", 0, {}),
    ("num_reverse_samples", -1, {}),
    ("num_reverse_samples", 2.0, {}),
    # One weight is always 1.
    ("num_reverse_samples", 1, {"temperature_update": "constant"}),
    ("target_kl", 0.0, {}),
    ("target_kl", math.nan, {}),
    # No weights diverge by more than log K, nor by as much but one of them.
    ("target_kl", math.log(16) + 1e-6, {}),
    ("target_kl", math.log(16), {}),
    ("target_kl", 1.0, {"num_reverse_samples": 2}),
    # Weights that need not sum to one have no divergence.
    ("temperature_update", "target_kl", {"weights": "exponential"}),
    ("temperature_update", "target_kl", {"weights": "normalized_exponential"}),
    ("boltzmann_temperature", 0.0, {}),
    ("boltzmann_temperature", math.inf, {}),
    ("boltzmann_temperature", 0.01, {"min_temperature": 0.1}),
    ("min_temperature", 0.0, {}),
    ("temperature_learning_rate", 0.0, {}),
    ("temperature_update_period", 0, {}),
    ("temperature_update", "decay", {}),
    ("weights", "softmax", {}),
    ("reverse_sampling", "bounded", {}),
    ("noisy_action_source", "prior", {}),
    ("noisy_action_scale", 0.0, {}),
    ("exploration_noise", 0.0, {"temperature_update": "reference_decay"}),
    ("num_action_candidates", 0, {}),
    ("num_target_candidates", 0, {}),
    ("num_evaluation_candidates", -1, {}),
  ],
)
def test_invalid_values(field, value, others):
  with pytest.raises(
    ValueError, match=rf"^SDACConfig\.{field} must.*{re.escape(repr(value))}\.$"
  ):
    acme_qsm.SDACConfig(**{field: value, **others})


@pytest.mark.parametrize(
  ("fields", "most"),
  [
    ({"boltzmann_temperature": 0.05}, 2.0),
    ({"boltzmann_temperature": 0.01, "q_value_clip": 0.5}, 0.4),
    # It falls to 0.0984 / exploration_noise, but not below its least.
    (
      {"temperature_update": "reference_decay", "exploration_noise": 2.0},
      1.968,
    ),
    (
      {
        "temperature_update": "reference_decay",
        "exploration_noise": 2.0,
        "min_temperature": 0.07,
      },
      2.8,
    ),
  ],
)
def test_weights_that_would_be_beyond_single_precision(fields, most):
  # Of Adam, which squares a gradient that has the weight for a factor.
  fields = {
    "weights": "normalized_exponential",
    "temperature_update": "constant",
    **fields,
  }
  with pytest.raises(
    ValueError, match=rf"^SDACConfig\.q_value_clip must be at most {most:.4g}, "
  ):
    acme_qsm.SDACConfig(**fields)
  acme_qsm.SDACConfig(**{**fields, "q_value_clip": most - 1e-3})
  acme_qsm.SDACConfig(
    **{**fields, "weights": "exponential", "q_value_clip": 9.0}
  )


@pytest.mark.parametrize(
  "fields",
  [
    {"num_reverse_samples": 1, "weights": "exponential"},
    {"num_reverse_samples": 1, "weights": "normalized_exponential"},
  ],
)
def test_one_sample_does_where_its_weight_says_something(fields):
  acme_qsm.SDACConfig(temperature_update="constant", **fields)


def test_a_divergence_just_below_the_limit():
  config = acme_qsm.SDACConfig(target_kl=math.log(16) - 1e-6)
  assert config.target_kl < math.log(config.num_reverse_samples)
  # Where it is not aimed at, it is not looked at.
  acme_qsm.SDACConfig(
    num_reverse_samples=2, target_kl=9.0, temperature_update="constant"
  )


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"beta_start": 0.5, "noise_schedule": "cosine"}, "has no bounds"),
    ({"beta_end": 1.5, "noise_schedule": "linear"}, "beta_end must be below 1"),
    ({"beta_start": 0.0}, r"\.beta_start must be positive"),
    ({"sampler": "ddim"}, r"\.sampler must be in .*posterior"),
    (
      {"sampling_start_scale": -1.0},
      r"\.sampling_start_scale must be at least",
    ),
  ],
)
def test_schedules_and_samplers_that_there_are_not(fields, message):
  with pytest.raises(ValueError, match=rf"^SDACConfig.*{message}"):
    acme_qsm.SDACConfig(**fields)
