"""Experiments: an agent in an environment, with logs, checkpoints, curves."""

import typing

from acme_qsm import lazy

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.program import make_distributed_experiment
  from acme_qsm.experiments.config import CheckpointingConfig
  from acme_qsm.experiments.config import ExperimentConfig
  from acme_qsm.experiments.config import ExperimentError
  from acme_qsm.experiments.one_process.loop import run_experiment
  from acme_qsm.experiments.one_process.loop import run_seeds

__all__ = [
  "CheckpointingConfig",
  "ExperimentConfig",
  "ExperimentError",
  "make_distributed_experiment",
  "run_experiment",
  "run_seeds",
]

__getattr__, __dir__ = lazy.attach(
  __name__,
  {
    "CheckpointingConfig": "acme_qsm.experiments.config",
    "ExperimentConfig": "acme_qsm.experiments.config",
    "ExperimentError": "acme_qsm.experiments.config",
    "make_distributed_experiment": "acme_qsm.distributed.program",
    "run_experiment": "acme_qsm.experiments.one_process.loop",
    "run_seeds": "acme_qsm.experiments.one_process.loop",
  },
)
