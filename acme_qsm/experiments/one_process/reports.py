"""What a run in one process says of its seeds: of one, or of several."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from acme_qsm.experiments import evaluation
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.one_process.seed_run import SeedRun
from acme_qsm.experiments.records import metrics


def describe_start(runs: Sequence[SeedRun]) -> str | None:
  """Says in a line what a run goes on from; None where nothing is kept."""
  first = runs[0]
  folder = first.records.path
  if folder is None:
    return None
  if len(runs) == 1:
    if not first.checkpoint:
      return f"A new run in {folder}."
    return (
      f"Resumed from {first.checkpoint.path}: {first.steps:,} environment "
      f"steps, {first.counts[LEARNER_STEPS]:,} learner steps, "
      f"{first.replay.size():,} items in replay."
    )
  if not any(run.checkpoint for run in runs):
    return f"A new run of {len(runs)} seeds in {folder.parent}."
  steps = [run.steps for run in runs]
  resumed = f"Resumed {len(steps)} seeds in {folder.parent}: {min(steps):,} "
  if min(steps) == max(steps):
    return f"{resumed}environment steps each."
  return (
    f"{resumed}to {max(steps):,} environment steps; those behind catch up "
    "first."
  )


def describe_results(
  runs: Sequence[SeedRun], results: Mapping[int, Mapping[str, float]]
) -> str:
  """Says in a line what an evaluation gave, of one seed or of some of many.

  Args:
    runs: all seeds.
    results: what `evaluation.run_episodes` returned.

  Returns:
    The line.
  """
  if len(runs) == 1:
    said = evaluation.describe(results[0])
    return f"{runs[0].steps:>9,} environment steps: {said}"
  steps = sorted({runs[index].steps for index in results})
  at = " to ".join(f"{step:,}" for step in {steps[0]: 0, steps[-1]: 0})
  returns = [result["episode_return"] for result in results.values()]
  return (
    f"{at:>9} environment steps: evaluation return {_describe_returns(returns)}"
    f" of {len(returns)} seeds"
  )


def display(
  runs: Sequence[SeedRun], learner_metrics: Mapping[str, Any]
) -> dict[str, Any]:
  """What whoever watches a run is shown, by name.

  Args:
    runs: all seeds.
    learner_metrics: of several seeds, the last step's [S] by name.

  Returns:
    Of several seeds, the last evaluations' mean and range and the metrics'
    means, which nothing waits for: they are fetched when they are shown.
  """
  returns = [
    run.evaluations.last["episode_return"]
    for run in runs
    if run.evaluations.last
  ]
  shown = {"learner steps": min(run.counts[LEARNER_STEPS] for run in runs)}
  if len(runs) == 1:
    evaluated = returns[0] if returns else None
    of_learner = metrics.select(runs[0].learner_log.last)
  else:
    evaluated = _describe_returns(returns) if returns else None
    of_learner = {name: jnp.nanmean(x) for name, x in learner_metrics.items()}
  return {**shown, "evaluation": evaluated, **of_learner}


def _describe_returns(returns: Sequence[float]) -> str:
  """The mean and the range of several seeds' returns."""
  return (
    f"{np.mean(returns):.1f} ({np.min(returns):.1f} to {np.max(returns):.1f})"
  )
