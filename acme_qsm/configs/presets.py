"""Settings that the presets of several methods have in common."""

from typing import Any

LEARNING: dict[str, Any] = {
  "policy_hidden_sizes": (256, 256, 256),
  "critic_hidden_sizes": (256, 256, 256),
  "num_denoising_steps": 20,
  "policy_learning_rate_schedule": "linear",
  "policy_learning_rate_end": 3e-5,
  "policy_learning_rate_begin": 25_000,
  "policy_learning_rate_steps": 50_000,
  "n_step": 1,
  "min_replay_size": 30_000,
  "updates_per_step": 0.2,
}
"""Of the implementation of Ma et al. (2025), which has several methods: counts
of environment steps are of five environments, with one update in five steps."""

DECAYING_TEMPERATURE: dict[str, Any] = {
  "boltzmann_temperature": 5.0,
  "temperature_update": "reference_decay",
  "temperature_learning_rate": 7e-3,
  "temperature_scales_noise": True,
}
"""Their temperature, which sets the noise too, whatever the policy does."""

PAPER: dict[str, Any] = {
  **LEARNING,
  **DECAYING_TEMPERATURE,
  "noise_schedule": "cosine",
}
"""What their paper says, or leaves to the implementation."""

REFERENCE: dict[str, Any] = {
  **LEARNING,
  "noise_schedule": "linear",
  "beta_start": 0.8 * 1e-4,
  "beta_end": 0.8 * 0.999,
  "sampling_start_scale": 0.5,
  "reward_scale": 0.2,
  "policy_update_period": 2,
  "act_with_target_denoiser": True,
  "num_action_candidates": 32,
  "num_target_candidates": 32,
  "num_evaluation_candidates": 32,
}
"""What the implementation does with the methods whose weights are the
critics', their temperature apart."""
