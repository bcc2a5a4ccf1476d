"""Experiments: an agent in an environment, with logs, checkpoints, curves."""

from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.run_experiment import ExperimentError
from acme_qsm.experiments.run_experiment import run_experiment

__all__ = [
  "CheckpointingConfig",
  "ExperimentConfig",
  "ExperimentError",
  "run_experiment",
]
