"""What learns and acts in a run in one process: for one seed, or for many."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import jax.numpy as jnp
import numpy as np

from acme_qsm.agents.seeds_actor import EnvironmentActor
from acme_qsm.agents.seeds_learner import SeedRecords
from acme_qsm.experiments import evaluation
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.one_process.seed_run import at_step_of
from acme_qsm.experiments.one_process.seed_run import SeedRun
from acme_qsm.experiments.records import metrics
from acme_qsm.experiments.records import run_records

_Note = Callable[[str], Any]


class LocalAgent(Protocol):
  """What the loop asks of an agent, for all seeds of a run."""

  def update(self) -> None:
    """Has the newest parameters to act by."""
    ...

  def select_actions(
    self, num_steps: Sequence[int]
  ) -> Sequence[Sequence[np.ndarray]]:
    """Chooses actions.

    Args:
      num_steps: for each seed, how many of its environments make a step.

    Returns:
      Each seed's actions, [A] each.
    """
    ...

  def learn(self) -> None:
    """Starts the learner steps that are due."""
    ...

  def evaluate_if_due(self, should_stop: Callable[[], bool]) -> None:
    """Makes the evaluations that are due, unless it is to stop."""
    ...

  def save(self) -> None:
    """Writes a checkpoint of each seed, if the run keeps any."""
    ...

  def draw_curves(self) -> None:
    """Draws what has not been drawn when it was evaluated."""
    ...

  def display(self) -> dict[str, Any]:
    """What whoever watches the run is shown."""
    ...

  def describe_start(self) -> str | None:
    """Says in a line what the run goes on from; None where nothing is kept."""
    ...


class OneSeed:
  """An agent of one seed, whatever builder makes it."""

  def __init__(
    self, run: SeedRun, num_envs: int, note: _Note, stack: contextlib.ExitStack
  ):
    """Makes its parts.

    Args:
      run: the seed's part of the run, started.
      num_envs: environments that make their steps together.
      note: is told what happens, in lines.
      stack: ends them.

    Raises:
      ExperimentError: if it cannot act in so many environments.
    """
    self._run = run
    self._learner = run.parts.learner(
      run.seeds.learner_key(),
      run.batches,
      lambda *args: run.make_learner_log(note, *args),
      run.replay.client,
      run.learner_counter,
    )
    run_records.restore_learner(self._learner, run.checkpoint)

    def make_actor(index: int, adder: Any) -> Any:
      if index > 0:
        return EnvironmentActor(adder, lambda: actors[0].extras(index))
      key = run.seeds.actor_key(run.steps, index)
      actor = run.parts.actor(key, self._learner, adder)
      if num_envs > 1 and not hasattr(actor, "select_actions"):
        raise ExperimentError(
          "num_envs must be 1: this agent's actor chooses one action at a time."
        )
      actors.append(actor)
      return actor

    actors: list[Any] = []
    self._episodes = run.make_environments(num_envs, make_actor)
    # It chooses for all of them.
    self._actor = actors[0]
    self._evaluator = evaluation.Evaluator(
      run.parts.evaluator(run.seeds.evaluator_key(run.steps), self._learner),
      run.make_evaluation_environment,
      run.schedule.num_episodes,
      run.records,
      run.experiment.title,
      note,
      run.state.evaluated_at,
    )
    stack.callback(self._evaluator.close)

  def update(self) -> None:
    """Has the newest parameters to act by."""
    self._actor.update(wait=True)

  def select_actions(
    self, num_steps: Sequence[int]
  ) -> Sequence[Sequence[np.ndarray]]:
    """Chooses actions: see `LocalAgent`."""
    with self._run.at_this_step():
      return [self._episodes.select_actions(num_steps[0])]

  def learn(self) -> None:
    """Starts the learner steps that are due."""
    with self._run.at_this_step():
      while self._run.batches.are_due:
        # Before it starts: the next action need not wait for it then.
        self._actor.update(wait=True)
        self._learner.step()

  def evaluate_if_due(self, should_stop: Callable[[], bool]) -> None:
    """Evaluates, if it is time."""
    run = self._run
    if run.schedule.is_due(run.steps, self._evaluator.evaluated_at):
      self.learn()
      self._evaluator.evaluate(run.counts.get_counts, should_stop)

  def save(self) -> None:
    """Writes a checkpoint, if the run keeps any."""
    self._run.save(self._learner, self._evaluator.evaluated_at)

  def draw_curves(self) -> None:
    """Does nothing: the curve is drawn at each evaluation."""

  def display(self) -> dict[str, Any]:
    """What whoever watches the run is shown."""
    return {
      "learner steps": self._run.counts[LEARNER_STEPS],
      "evaluation": self._evaluator.last.get("episode_return"),
      **metrics.select(self._run.learner_log.last),
    }

  def describe_start(self) -> str | None:
    """Says in a line what the run goes on from."""
    run = self._run
    if run.checkpoint:
      return (
        f"Resumed from {run.checkpoint.path}: {run.steps:,} environment steps, "
        f"{run.counts[LEARNER_STEPS]:,} learner steps, "
        f"{run.replay.size():,} items in replay."
      )
    return f"A new run in {run.records.path}." if run.records.path else None


class ManySeeds:
  """An agent of several seeds, which act and learn in one call each."""

  def __init__(
    self,
    runs: Sequence[SeedRun],
    num_envs: int,
    folder: pathlib.Path | None,
    note: _Note,
    stack: contextlib.ExitStack,
  ):
    """Makes its parts.

    Args:
      runs: the seeds' parts of the run, started.
      num_envs: environments of each that make their steps together.
      folder: where what is said of all of them goes; None for nowhere.
      note: is told what happens, in lines.
      stack: ends them.
    """
    self._runs = runs
    self._folder = folder
    self._note = note
    self._is_drawn = True
    # Shared by all seeds.
    parts = runs[0].parts
    self._learner = parts.seeds_learner(
      [
        SeedRecords(
          random_key=run.seeds.learner_key(),
          dataset=run.batches,
          counter=run.learner_counter,
          logger=run.make_learner_log(note, "learner", LEARNER_STEPS),
          name=run.name,
          replay=run.replay.client,
        )
        for run in runs
      ]
    )
    for run, learner in zip(runs, self._learner.seeds, strict=True):
      run_records.restore_learner(learner, run.checkpoint)
    self._actor = parts.seeds_actor(
      [run.seeds.actor_key(run.steps) for run in runs], self._learner
    )
    self._episodes = [
      run.make_environments(num_envs, self._make_actor(index))
      for index, run in enumerate(runs)
    ]
    self._evaluating_actor = parts.seeds_actor(
      [run.seeds.evaluator_key(run.steps) for run in runs],
      self._learner,
      evaluation=True,
    )
    self._evaluations = [
      evaluation.Evaluations(
        run.make_evaluation_environment,
        run.schedule.num_episodes,
        run.records,
        run.state.evaluated_at,
      )
      for run in runs
    ]
    for each in self._evaluations:
      stack.callback(each.close)

  def _make_actor(self, index: int) -> Callable[[int, Any], EnvironmentActor]:
    """(number of a seed's environment, its adder) -> its actor."""

    def make(environment: int, adder: Any) -> EnvironmentActor:
      def extras() -> Mapping[str, np.ndarray]:
        return self._actor.extras(index, environment)

      # As with one seed, the first one's episodes say when a key begins.
      if environment == 0:
        return EnvironmentActor(adder, extras, lambda: self._actor.begin(index))
      return EnvironmentActor(adder, extras)

    return make

  def update(self) -> None:
    """Has the newest parameters to act by."""
    self._actor.update([True] * len(self._runs))

  def select_actions(
    self, num_steps: Sequence[int]
  ) -> Sequence[Sequence[np.ndarray]]:
    """Chooses actions: see `LocalAgent`."""
    observations = {}
    for index, number in enumerate(num_steps):
      if number:
        with self._runs[index].at_this_step():
          observations[index] = self._episodes[index].observations(number)
    actions = self._actor.select_actions(
      evaluation.stack_seeds(observations, len(num_steps)),
      [number > 0 for number in num_steps],
    )
    return [actions[index, :number] for index, number in enumerate(num_steps)]

  def learn(self) -> None:
    """Starts the learner steps that are due."""
    with at_step_of(self._runs):
      while any(due := [run.batches.are_due for run in self._runs]):
        self._actor.update(due)
        self._learner.step(due)

  def evaluate_if_due(self, should_stop: Callable[[], bool]) -> None:
    """Evaluates the seeds for which it is time, together."""
    due = [
      index
      for index, (run, evaluations) in enumerate(
        zip(self._runs, self._evaluations, strict=True)
      )
      if run.schedule.is_due(run.steps, evaluations.evaluated_at)
    ]
    if not due:
      return
    self.learn()
    self._evaluating_actor.update([True] * len(self._runs))
    counted = {index: self._runs[index].counts.get_counts() for index in due}
    with contextlib.ExitStack() as stack:
      results = evaluation.evaluate_seeds(
        {
          index: stack.enter_context(
            self._evaluations[index].opened(self._runs[index].steps)
          )
          for index in due
        },
        len(self._runs),
        self._evaluating_actor,
        self._runs[0].schedule.num_episodes,
        should_stop,
      )
    if results is None:
      return
    for index, result in results.items():
      self._evaluations[index].record(counted[index], result)
    self._is_drawn = False
    self._note(_describe_results([self._runs[i] for i in due], results))

  def save(self) -> None:
    """Writes a checkpoint of each seed, if the run keeps any."""
    for run, learner, evaluations in zip(
      self._runs, self._learner.seeds, self._evaluations, strict=True
    ):
      with at_step_of(self._runs):
        run.save(learner, evaluations.evaluated_at)
    self.draw_curves()

  def draw_curves(self) -> None:
    """Draws each seed's curve and all in one, if there is something new.

    Not at each evaluation: so many pictures take their time.
    """
    if self._is_drawn or self._folder is None:
      return
    title = self._runs[0].experiment.title
    for run in self._runs:
      run.records.draw_curve(title)
    run_records.draw_curves(
      self._folder,
      {title: [run.records.path for run in self._runs if run.records.path]},
      title,
      self._runs[0].records.disk,
    )
    self._is_drawn = True

  def display(self) -> dict[str, Any]:
    """What whoever watches the run is shown."""
    returns = [
      each.last["episode_return"] for each in self._evaluations if each.last
    ]
    return {
      "learner steps": min(run.counts[LEARNER_STEPS] for run in self._runs),
      "evaluation": _describe_returns(returns) if returns else None,
      # Not waited for: it is fetched when it is shown.
      **{
        name: jnp.nanmean(values)
        for name, values in self._learner.metrics.items()
      },
    }

  def describe_start(self) -> str | None:
    """Says in a line what the run goes on from."""
    if self._folder is None:
      return None
    if not any(run.checkpoint for run in self._runs):
      return f"A new run of {len(self._runs)} seeds in {self._folder}."
    steps = [run.steps for run in self._runs]
    if min(steps) == max(steps):
      return (
        f"Resumed {len(steps)} seeds in {self._folder}: {steps[0]:,} "
        "environment steps each."
      )
    return (
      f"Resumed {len(steps)} seeds in {self._folder}: {min(steps):,} to "
      f"{max(steps):,} environment steps; those behind catch up first."
    )


def _describe_returns(returns: Sequence[float]) -> str:
  """The mean and the range of several seeds' returns."""
  return (
    f"{np.mean(returns):.1f} ({np.min(returns):.1f} to {np.max(returns):.1f})"
  )


def _describe_results(
  runs: Sequence[SeedRun], results: Mapping[int, Mapping[str, float]]
) -> str:
  """Says in a line what an evaluation of several seeds gave."""
  steps = sorted({run.steps for run in runs})
  at = " to ".join(f"{step:,}" for step in {steps[0]: 0, steps[-1]: 0})
  returns = [result["episode_return"] for result in results.values()]
  return (
    f"{at:>9} environment steps: evaluation return {_describe_returns(returns)}"
    f" of {len(returns)} seeds"
  )
