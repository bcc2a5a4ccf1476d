"""Acting, learning and evaluating in turn, in one process."""

import contextlib
import pathlib
from collections.abc import Sequence

from acme_qsm.experiments import no_learning
from acme_qsm.experiments.config import as_experiment_error
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.config import ReplayKind
from acme_qsm.experiments.config import require_at_least
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.one_process import local_replay
from acme_qsm.experiments.one_process import reports
from acme_qsm.experiments.one_process.agent import Agent
from acme_qsm.experiments.one_process.seed_run import SeedRun
from acme_qsm.experiments.records.disk import Disk
from acme_qsm.experiments.records.disk import SaveError
from acme_qsm.experiments.run import prepare
from acme_qsm.experiments.run import Run
from acme_qsm.experiments.surroundings import native_output
from acme_qsm.experiments.surroundings.interruption import Interruption
from acme_qsm.experiments.surroundings.progress import Progress

# Environment steps between updates of the display.
_DISPLAY_PERIOD = 20


def run_experiment(
  experiment: ExperimentConfig,
  eval_every: int = 100,
  num_eval_episodes: int = 1,
  *,
  replay: ReplayKind = "auto",
  num_envs: int = 1,
) -> None:
  """Runs an experiment in this process, from where it was left.

  Every environment step is followed by as many learner steps as the agent calls
  for. They are computed while the environment makes its next step, so that an
  action is chosen with the parameters before the newest learner steps; an
  evaluation has the newest. With a work directory (`experiment.checkpointing`),
  the run leaves there its configuration, logs, checkpoints and learning curve,
  and goes on from its last checkpoint if it was interrupted: by SIGINT,
  SIGTERM, SIGHUP or SIGUSR1, which first make it save one, or by anything else.
  While the disk is full it goes on without logs and checkpoints.

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
    InvalidValueError: if the environment gives what nobody can use, such as a
      reward of None, or (a NonFiniteError) it or a loss gives a NaN or an
      infinity.
    SaveError: if the last checkpoint cannot be written.
    KeyboardInterrupt: after SIGINT, once a checkpoint is written.
    SystemExit: after SIGTERM, SIGHUP or SIGUSR1, likewise.
  """
  require_at_least(1, num_envs=num_envs)
  run = prepare(experiment, eval_every, num_eval_episodes)
  if num_envs > 1 and not run.parts.acts_in_several():
    raise ExperimentError(
      "num_envs must be 1: this agent's actor chooses one action at a time."
    )
  _run([run], replay, num_envs, run.folder)


def run_seeds(
  experiment: ExperimentConfig,
  num_seeds: int,
  eval_every: int = 100,
  num_eval_episodes: int = 1,
  *,
  num_envs: int = 1,
) -> None:
  """Runs several seeds of an experiment at once in this process.

  The seeds experiment.seed, experiment.seed + 1, ... each have what
  `run_experiment` gives one with an embedded replay, in the folder
  `seed_<seed>` of the experiment's work directory: either goes on from what the
  other left. The learner steps of all seeds are one call, and so are their
  actions; evaluations are made together. Seeds that are behind the others, as
  after a kill between two checkpoints, first catch up with them. The pictures,
  `learning_curves.png` of all seeds among them, are drawn at checkpoints and at
  the end.

  A seed has the random numbers that it has alone, and what comes of them is
  equal up to rounding: products of stacked matrices are summed in another
  order. Over thousands of steps, the two are alike statistically only.
  Observers see the environments of all seeds, and a logger_factory is told a
  seed's number as its instance.

  Args:
    experiment: what to run; its builder makes `make_seeds_learner` and
      `make_seeds_actor`, as `DiffusionBuilder` does. Its seed is the first.
    num_seeds: how many seeds, at least 1.
    eval_every: environment steps of each seed between evaluations, positive.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluation.
    num_envs: environments of each seed that make their steps together, at
      least 1.

  Raises:
    Exception: what `run_experiment` raises, for any of the seeds. Of an
      InvalidValueError, which names the seed, nothing is saved: every seed
      stays at its last checkpoint.
  """
  require_at_least(1, num_seeds=num_seeds, num_envs=num_envs)
  run = prepare(experiment, eval_every, num_eval_episodes)
  if not (run.parts.trains_seeds() and run.parts.acts_in_several()):
    raise ExperimentError(
      "num_seeds must be 1: this agent's builder makes no learner of several "
      "seeds on an embedded replay, or no actor of several."
    )
  _run(run.of_seeds(num_seeds), "embedded", num_envs, run.folder)


def _run(
  runs: Sequence[Run],
  replay: local_replay.ReplayKind,
  num_envs: int,
  folder: pathlib.Path | None,
) -> None:
  """Runs S seeds, whose files are in a folder."""
  with as_experiment_error():
    start_replays = local_replay.prepare_replays(
      replay, runs[0].parts, [run.seeds.replay() for run in runs]
    )
  with contextlib.ExitStack() as stack:
    # One for all seeds, so that they say it once.
    disk = Disk()
    seeds = [SeedRun(run, disk, stack) for run in runs]
    _Loop(seeds, num_envs, folder, start_replays, stack).run()


class _Loop:
  """The loop over environment steps, of all seeds together."""

  def __init__(
    self,
    runs: Sequence[SeedRun],
    num_envs: int,
    folder: pathlib.Path | None,
    start_replays: Sequence[local_replay.Start],
    stack: contextlib.ExitStack,
  ):
    """Makes the parts, each of which the stack ends.

    Args:
      runs: each seed's part of the run.
      num_envs: environments of each that make their steps together.
      folder: where the run's files are; None for a run that keeps none.
      start_replays: start each seed's replay.
      stack: ends what is made.
    """
    experiment = runs[0].experiment
    self._runs = runs
    self._num_envs = num_envs
    self._total_steps = experiment.max_num_actor_steps
    records = runs[0].records
    self._where = f" in {folder}" if folder else ""
    stack.enter_context(native_output.redirected(records.native_log))
    self._interruption = stack.enter_context(Interruption())
    self._save_timer = records.save_timer()
    title = experiment.title
    if len(runs) > 1:
      title += f", {len(runs)} seeds"
    self._progress = Progress(self._total_steps, title, self._steps)
    self._disk = records.disk
    self._disk.say = self._progress.note
    for run, start_replay in zip(runs, start_replays, strict=True):
      run.start(start_replay)
    self._agent = Agent(runs, num_envs, folder, self._progress.note)
    stack.enter_context(self._progress)
    start = reports.describe_start(runs)
    if start is not None:
      self._progress.note(start)
    warning = no_learning.warn_of_no_learning(experiment)
    if warning is not None and not self._has_learned:
      self._progress.note(warning)

  @property
  def _steps(self) -> int:
    """Environment steps made by each seed, if not more."""
    return min(run.steps for run in self._runs)

  @property
  def _has_learned(self) -> bool:
    """Whether a learner step of any seed was ever made."""
    return any(run.counts[LEARNER_STEPS] for run in self._runs)

  @property
  def _is_over(self) -> bool:
    """Whether no more environment steps are to be made."""
    return self._steps >= self._total_steps or self._interruption.requested()

  def run(self) -> None:
    """Runs to the end, or until interrupted."""
    self._save_timer.restart()
    self._agent.update()
    self._evaluate_if_due()
    while not self._is_over:
      self._step()
      self._evaluate_if_due()
      self._display()
    if self._interruption.requested() or self._are_unsaved:
      self._agent.learn()
      self._save()
    self._agent.draw_curves()
    if self._are_unsaved:
      raise SaveError(
        f"The last checkpoint could not be written: {self._disk.error}"
      )
    self._interruption.raise_if_requested()
    self._progress.note(
      f"Done: {self._steps:,} environment steps{self._where}."
    )
    if not self._has_learned:
      self._progress.note(
        no_learning.describe_no_learning(self._runs[0].experiment)
      )

  @property
  def _are_unsaved(self) -> bool:
    """Whether any seed has made steps that are in no checkpoint."""
    return any(run.saved_steps != run.steps for run in self._runs)

  def _step(self) -> None:
    """Makes a step of each environment, and the learner steps that are due."""
    actions = self._agent.select_actions(self._num_steps())
    # JAX computes beside what follows here, up to the next action.
    self._agent.learn()
    # Here nothing is due, and a save does not change what comes after.
    if self._save_timer.is_due():
      self._save()
    for run, of_run in zip(self._runs, actions, strict=True):
      run.step(of_run)

  def _num_steps(self) -> list[int]:
    """How many environments of each seed are to make a step."""
    made = [min(run.steps, self._total_steps) for run in self._runs]
    # Those behind catch up first, from then on all go together.
    until = max(made) if min(made) < max(made) else self._total_steps
    return [min(self._num_envs, until - steps) for steps in made]

  def _evaluate_if_due(self) -> None:
    def should_stop() -> bool:
      self._progress.update(self._steps)
      return self._interruption.requested()

    self._agent.evaluate_if_due(should_stop)

  def _display(self) -> None:
    if self._steps % _DISPLAY_PERIOD < self._num_envs:
      self._progress.update(self._steps, **self._agent.display())

  def _save(self) -> None:
    """Writes a checkpoint of it all, if the run keeps any."""
    self._agent.save()
    self._save_timer.restart()
