"""What learns, acts and evaluates in a run in one process, for all seeds."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from acme_qsm.agents.learner import LearnerSeed
from acme_qsm.experiments import evaluation
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.one_process import reports
from acme_qsm.experiments.one_process.seed_run import at_step_of
from acme_qsm.experiments.one_process.seed_run import SeedRun
from acme_qsm.experiments.one_seed import OneActor
from acme_qsm.experiments.one_seed import OneLearner
from acme_qsm.experiments.records import run_records


class Agent:
  """An agent of S seeds, which learn, act and are evaluated in one call each.

  One seed's learner, and its actor in one environment, are any builder's.
  """

  def __init__(
    self,
    runs: Sequence[SeedRun],
    num_envs: int,
    folder: pathlib.Path | None,
    note: Callable[[str], Any],
  ):
    """Makes its parts.

    Args:
      runs: the seeds' parts of the run, started.
      num_envs: environments of each that make their steps together.
      folder: where what is said of all of them goes; None for nowhere.
      note: is told what happens, in lines.
    """
    self._runs = runs
    self._folder = folder
    self._note = note
    self._is_drawn = True
    self._learner = self._make_learner()
    for run, learner in zip(runs, self._learner.seeds, strict=True):
      run_records.restore_learner(learner, run.checkpoint)
    self._actor = self._make_actor(num_envs)
    self._evaluator = self._make_evaluator()
    for index, run in enumerate(runs):
      run.make_environments(self._actor, index)

  def _make_learner(self) -> Any:
    runs, parts = self._runs, self._runs[0].parts
    if len(runs) > 1:
      return parts.seeds_learner(
        [
          LearnerSeed(
            run.seeds.learner_key(),
            run.batches,
            run.learner_counter,
            run.make_learner_log(self._note, "learner", LEARNER_STEPS),
            run.replay.client,
            run.name,
          )
          for run in runs
        ]
      )
    (run,) = runs
    return OneLearner(
      parts.learner(
        run.seeds.learner_key(),
        run.batches,
        lambda *args: run.make_learner_log(self._note, *args),
        run.replay.client,
        run.learner_counter,
      )
    )

  def _make_actor(self, num_envs: int) -> Any:
    """What acts in all environments, each of which has an adder of its own."""
    runs, parts = self._runs, self._runs[0].parts
    adders = [run.make_adders(num_envs) for run in runs]
    keys = [run.seeds.actor_key(run.steps) for run in runs]
    if len(runs) == num_envs == 1:
      return OneActor(parts.actor(keys[0], self._variables, adders[0][0]))
    return parts.seeds_actor(keys, self._variables, adders)

  def _make_evaluator(self) -> Any:
    runs, parts = self._runs, self._runs[0].parts
    keys = [run.seeds.evaluator_key(run.steps) for run in runs]
    if len(runs) == 1:
      return OneActor(parts.evaluator(keys[0], self._variables))
    return parts.seeds_actor(keys, self._variables)

  @property
  def _variables(self) -> Any:
    """What has the parameters to act by."""
    return self._learner.seeds[0] if len(self._runs) == 1 else self._learner

  def update(self) -> None:
    """Has the newest parameters to act by."""
    self._actor.update(wait=True)

  def select_actions(
    self, num_steps: Sequence[int]
  ) -> Sequence[Sequence[np.ndarray]]:
    """Chooses actions.

    Args:
      num_steps: for each seed, how many of its environments make a step.

    Returns:
      Each seed's actions, [A] each.
    """
    return self._actor.select_actions(
      [
        run.observations(number)
        for run, number in zip(self._runs, num_steps, strict=True)
      ]
    )

  def learn(self) -> None:
    """Starts the learner steps that are due."""
    with at_step_of(self._runs):
      while any(due := [run.batches.are_due for run in self._runs]):
        # Before it starts: the next action need not wait for it then.
        self._actor.update(wait=True, takes_part=due)
        self._learner.step(due)

  def evaluate_if_due(self, should_stop: Callable[[], bool]) -> None:
    """Evaluates the seeds for which it is time, together.

    Args:
      should_stop: asked after every step; where it says so, no evaluation is
        finished.
    """
    due = {
      index: run.evaluations
      for index, run in enumerate(self._runs)
      if run.schedule.is_due(run.steps, run.evaluations.evaluated_at)
    }
    if not due:
      return
    self.learn()
    results = evaluation.evaluate(
      self._evaluator,
      due,
      self._runs[0].schedule.num_episodes,
      lambda index: self._runs[index].counts.get_counts(),
      should_stop,
    )
    if results is None:
      return
    self._note(reports.describe_results(self._runs, results))
    self._is_drawn = False
    # Of several seeds, so many pictures take their time.
    if len(self._runs) == 1:
      self.draw_curves()

  def save(self) -> None:
    """Writes a checkpoint of each seed, if the run keeps any."""
    for run, learner in zip(self._runs, self._learner.seeds, strict=True):
      with at_step_of(self._runs):
        run.save(learner)
    self.draw_curves()

  def draw_curves(self) -> None:
    """Draws each seed's curve, and several in one, if one has grown."""
    if self._is_drawn:
      return
    self._is_drawn = True
    title = self._runs[0].experiment.title
    for run in self._runs:
      run.records.draw_curve(title)
    if len(self._runs) > 1 and self._folder is not None:
      run_records.draw_curves(
        self._folder,
        {title: [run.records.path for run in self._runs if run.records.path]},
        title,
        self._runs[0].records.disk,
      )

  def display(self) -> dict[str, Any]:
    """What whoever watches the run is shown."""
    several = self._learner.metrics if len(self._runs) > 1 else {}
    return reports.display(self._runs, several)
