from .config import CheckpointingConfig as CheckpointingConfig
from .config import ExperimentConfig as ExperimentConfig
from .config import ExperimentError as ExperimentError
from .distributed_experiment import (
  make_distributed_experiment as make_distributed_experiment,
)
from .one_process.loop import run_experiment as run_experiment
from .one_process.loop import run_seeds as run_seeds
