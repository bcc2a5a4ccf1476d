"""Acting, learning and evaluating in turn, in one process."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from acme_qsm.experiments import environments
from acme_qsm.experiments import local_replay
from acme_qsm.experiments import native_output
from acme_qsm.experiments import preparation
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import Counter
from acme_qsm.experiments.counts import Counts
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.episodes import Episodes
from acme_qsm.experiments.evaluation import Evaluator
from acme_qsm.experiments.interruption import Interruption
from acme_qsm.experiments.local_replay import Batches
from acme_qsm.experiments.progress import Progress
from acme_qsm.experiments.records import metrics
from acme_qsm.experiments.records import run_records
from acme_qsm.experiments.records.checkpointing import Checkpoint
from acme_qsm.experiments.records.run_state import RunState
from acme_qsm.experiments.seeds import Seeds
from acme_qsm.types import NonFiniteError

# Learner steps between rows of the learner's log.
_LEARNER_LOG_PERIOD = 500
# Environment steps between updates of the display.
_DISPLAY_PERIOD = 20


def run_experiment(
  experiment: ExperimentConfig,
  eval_every: int = 100,
  num_eval_episodes: int = 1,
  *,
  replay: local_replay.ReplayKind = "auto",
  num_envs: int = 1,
) -> None:
  """Runs an experiment in this process, from where it was left.

  Every environment step is followed by as many learner steps as the agent calls
  for. They are computed while the environment makes its next step, so that an
  action is chosen with the parameters before the newest learner steps; an
  evaluation has the newest. With a work directory (`experiment.checkpointing`),
  the run leaves there its configuration, logs, checkpoints and learning curve,
  and goes on from its last checkpoint if it was interrupted: by SIGINT or
  SIGTERM, which first make it save one, or by anything else.

  Args:
    experiment: what to run.
    eval_every: environment steps between evaluations, positive.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluation.
    replay: "embedded" in this process's memory, "reverb" in a Reverb server
      within it; "auto" for the one that the run had before, or else the first
      that the builder can have.
    num_envs: environments that make their steps together, their actions chosen
      in one call; at least 1.

  Raises:
    ExperimentError: if an argument, the environment or the work directory
      cannot be used, or replay does not fit into memory; before anything is
      started.
    CheckpointError: if none of the run's checkpoints can be read, or the other
      kind of replay wrote it.
    NonFiniteError: if the environment or a loss gives a NaN or an infinity.
    KeyboardInterrupt: after SIGINT, once a checkpoint is written.
    SystemExit: after SIGTERM, likewise.
  """
  if num_envs < 1:
    raise ExperimentError(f"num_envs must be at least 1, got {num_envs}.")
  prepared = preparation.prepare(experiment, eval_every, num_eval_episodes)
  with preparation.as_experiment_error():
    start_replay = local_replay.prepare(
      replay, prepared.parts, Seeds(experiment.seed).replay()
    )
  with contextlib.ExitStack() as stack:
    _LocalRun(prepared, start_replay, num_envs, stack).run()


class _LocalRun:
  """The parts of a run, and the loop over them."""

  def __init__(
    self,
    prepared: preparation.Prepared,
    start_replay: Callable[..., local_replay.Replay],
    num_envs: int,
    stack: contextlib.ExitStack,
  ):
    """Makes the parts, each of which the stack ends."""
    experiment = prepared.experiment
    self._experiment = experiment
    self._schedule = prepared.schedule
    self._seeds = Seeds(experiment.seed)
    self._num_envs = num_envs

    workdir = prepared.open_workdir()
    if workdir is not None:
      stack.callback(workdir.close)
    self._records = run_records.RunRecords(
      workdir.path if workdir else None,
      experiment.checkpointing,
      experiment.logger_factory,
    )
    checkpoint = self._records.latest_checkpoint()
    stack.enter_context(native_output.redirected(self._records.native_log))
    self._interruption = stack.enter_context(Interruption())
    state = RunState.of(checkpoint)
    self._counts = Counts(state.counts)
    self._saved_steps = state.actor_steps

    self._replay = start_replay(workdir, checkpoint)
    stack.callback(self._replay.stop)
    self._records.rewind(checkpoint)
    self._make_learner(prepared, checkpoint, stack)
    self._make_episodes(prepared, stack)
    self._progress = stack.enter_context(
      Progress(experiment.max_num_actor_steps, experiment.title, self._steps)
    )
    self._make_evaluator(prepared, state, stack)
    self._tell_where_it_starts(checkpoint)

  def _make_learner(
    self,
    prepared: preparation.Prepared,
    checkpoint: Checkpoint | None,
    stack: contextlib.ExitStack,
  ) -> None:
    self._batches = Batches(self._replay, prepared.parts)
    # Until there is a row: not every learner asks for a logger.
    self._learner_log = metrics.SampledLogger(
      metrics.NoLogger(), metrics.every(_LEARNER_LOG_PERIOD)
    )

    def make_logger(*args: Any) -> metrics.SampledLogger:
      self._learner_log = metrics.SampledLogger(
        self._records.logger(*args),
        metrics.every(_LEARNER_LOG_PERIOD),
        lambda message: self._progress.note(message),
      )
      stack.callback(self._learner_log.close)
      return self._learner_log

    self._learner = prepared.parts.learner(
      self._seeds.learner_key(),
      self._batches,
      make_logger,
      self._replay.client,
      Counter(self._counts, "learner"),
    )
    run_records.restore_learner(self._learner, checkpoint)

  def _make_episodes(
    self, prepared: preparation.Prepared, stack: contextlib.ExitStack
  ) -> None:
    group = [
      stack.enter_context(
        environments.opened(
          lambda index=index: self._experiment.environment_factory(
            self._seeds.environment(self._steps, index)
          )
        )
      )
      for index in range(self._num_envs)
    ]
    self._adders = [
      prepared.parts.adder(self._replay.client) for _ in range(self._num_envs)
    ]
    for adder in self._adders:
      # What is on its way then arrives before replay stops: Acme's adders would
      # wait for that in vain when they are deleted.
      if adder is not None:
        stack.callback(adder.reset)
    actors = [
      prepared.parts.actor(
        self._seeds.actor_key(self._steps, index), self._learner, adder
      )
      for index, adder in enumerate(self._adders)
    ]
    # It chooses for all of them.
    self._actor = actors[0]
    if self._num_envs > 1 and not hasattr(self._actor, "select_actions"):
      raise ExperimentError(
        "num_envs must be 1: this agent's actor chooses one action at a time."
      )
    logger = self._records.logger("actor", ACTOR_STEPS)
    stack.callback(logger.close)
    self._episodes = Episodes(
      group, actors, self._experiment.observers, self._counts, logger
    )

  def _make_evaluator(
    self,
    prepared: preparation.Prepared,
    state: RunState,
    stack: contextlib.ExitStack,
  ) -> None:
    self._evaluator = Evaluator(
      prepared.parts.evaluator(
        self._seeds.evaluator_key(self._steps), self._learner
      ),
      lambda steps: self._experiment.environment_factory(
        self._seeds.evaluation_environment(steps)
      ),
      prepared.schedule.num_episodes,
      self._records,
      self._experiment.title,
      self._progress.note,
      state.evaluated_at,
    )
    stack.callback(self._evaluator.close)

  def _tell_where_it_starts(self, checkpoint: Checkpoint | None) -> None:
    if checkpoint:
      self._progress.note(
        f"Resumed from {checkpoint.path}: {self._steps:,} environment steps, "
        f"{self._counts[LEARNER_STEPS]:,} learner steps, "
        f"{self._replay.size():,} items in replay."
      )
    elif self._records.path:
      self._progress.note(f"A new run in {self._records.path}.")

  @property
  def _steps(self) -> int:
    """Environment steps made."""
    return self._counts[ACTOR_STEPS]

  @property
  def _is_over(self) -> bool:
    """Whether no more environment steps are to be made."""
    return (
      self._steps >= self._experiment.max_num_actor_steps
      or self._interruption.requested()
    )

  def run(self) -> None:
    """Runs to the end, or until interrupted."""
    self._save_timer = self._records.save_timer()
    self._actor.update(wait=True)
    self._evaluate_if_due()
    while not self._is_over:
      if self._save_timer.is_due():
        self._save()
      self._step()
      self._evaluate_if_due()
      self._display()
    if self._saved_steps != self._steps or self._interruption.requested():
      self._save()
    self._interruption.raise_if_requested()
    self._progress.note(
      f"Done: {self._steps:,} environment steps"
      + (f" in {self._records.path}." if self._records.path else ".")
    )

  def _step(self) -> None:
    """Makes a step of each environment, and the learner steps that are due."""
    left = self._experiment.max_num_actor_steps - self._steps
    with self._at_this_step():
      actions = self._episodes.select_actions(min(self._num_envs, left))
    # JAX computes beside what follows here, up to the next action.
    self._learn()
    with self._at_this_step():
      self._episodes.step(actions)
      self._batches.prepare()

  def _learn(self) -> None:
    """Starts the learner steps that are due."""
    with self._at_this_step():
      while self._batches.are_due:
        # Before it starts: the next action need not wait for it then.
        self._actor.update(wait=True)
        self._learner.step()

  @contextlib.contextmanager
  def _at_this_step(self) -> Iterator[None]:
    """Says at which environment step a NaN or an infinity turned up."""
    try:
      yield
    except NonFiniteError as error:
      raise NonFiniteError(
        f"At environment step {self._steps + 1}: {error}"
      ) from error

  def _evaluate_if_due(self) -> None:
    if not self._schedule.is_due(self._steps, self._evaluator.evaluated_at):
      return
    self._learn()

    def should_stop() -> bool:
      self._progress.update(self._steps)
      return self._interruption.requested()

    self._evaluator.evaluate(self._counts.get_counts, should_stop)

  def _display(self) -> None:
    if self._steps % _DISPLAY_PERIOD >= self._num_envs:
      return
    self._progress.update(
      self._steps,
      **{
        "learner steps": self._counts[LEARNER_STEPS],
        "evaluation": self._evaluator.last.get("episode_return"),
        **metrics.select(self._learner_log.last),
      },
    )

  def _save(self) -> None:
    """Ends what is due; writes a checkpoint of it all if the run keeps any."""
    self._learn()
    for adder in self._adders:
      if hasattr(adder, "flush"):
        adder.flush()
    self._records.save(
      self._learner,
      RunState(
        self._steps, self._evaluator.evaluated_at, self._counts.get_counts()
      ),
      self._replay.save,
    )
    self._save_timer.restart()
    self._saved_steps = self._steps
