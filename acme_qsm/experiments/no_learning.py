"""Says so where a run is too short for anything to be learned."""

from collections.abc import Mapping

from acme_qsm.experiments.config import ExperimentConfig


def warn_of_no_learning(experiment: ExperimentConfig) -> str | None:
  """Says so if a run is to end before learning begins.

  Args:
    experiment: what is to be run.

  Returns:
    A line that names the field to change; None if learning will begin.
  """
  least = _min_replay_size(experiment)
  # About one transition for each environment step.
  if least is None or experiment.max_num_actor_steps >= least:
    return None
  return (
    "Warning: nothing will be learned. Learning begins once replay holds "
    f"min_replay_size={least:,} transitions, and the run ends at "
    f"{experiment.max_num_actor_steps:,} environment steps: lower "
    "min_replay_size, or make more steps."
  )


def describe_no_learning(experiment: ExperimentConfig) -> str:
  """Says why a run that has ended made no learner step, by the field's name."""
  least = _min_replay_size(experiment)
  if least is None:
    return "Nothing was learned: no learner step was due."
  return (
    "Nothing was learned: replay did not come to hold "
    f"min_replay_size={least:,} transitions in "
    f"{experiment.max_num_actor_steps:,} environment steps."
  )


def _min_replay_size(experiment: ExperimentConfig) -> int | None:
  """Transitions that replay holds before learning begins, where it is known."""
  config = getattr(experiment.builder, "config", None)
  if isinstance(config, Mapping):  # Of a builder of Acme's.
    config = config.get("config")
  return getattr(config, "min_replay_size", None)
