"""What a run in one process has for each seed: files, replay, environments."""

import contextlib
import functools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from acme_qsm.experiments import environment_groups
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import Counter
from acme_qsm.experiments.counts import Counts
from acme_qsm.experiments.evaluation import Evaluations
from acme_qsm.experiments.one_process.episodes import Episodes
from acme_qsm.experiments.one_process.local_replay import Batches
from acme_qsm.experiments.one_process.local_replay import Replay
from acme_qsm.experiments.records import metrics
from acme_qsm.experiments.records import run_records
from acme_qsm.experiments.records.disk import Disk
from acme_qsm.experiments.records.run_state import RunState
from acme_qsm.experiments.run import Run
from acme_qsm.types import InvalidValueError

# Learner steps between rows of the learner's log.
_LEARNER_LOG_PERIOD = 500


@contextlib.contextmanager
def at_step_of(runs: "Sequence[SeedRun]", name: str = "") -> Iterator[None]:
  """Says at which environment step a value turned up that nobody can use.

  Args:
    runs: the seeds in any of which it may have.
    name: what is said of where; "" for nothing.
  """
  try:
    yield
  except InvalidValueError as error:
    where = f"{name}, at" if name else "At"
    step = min(run.steps for run in runs) + 1
    raise type(error)(f"{where} environment step {step}: {error}") from error


@contextlib.contextmanager
def _as_start_error() -> Iterator[None]:
  """Turns what the file system says at the start into an `ExperimentError`."""
  try:
    yield
  except OSError as error:
    raise ExperimentError(f"The run cannot start: {error}.") from error


class SeedRun:
  """A seed's own part of a run: all but what learns and chooses actions.

  Attributes:
    name: what the seed is called; "" where it is the only one.
    seeds: its random numbers.
    experiment: its experiment.
    parts: its agent's parts.
    schedule: when it is evaluated.
    records: its files.
    checkpoint: what it goes on from; None for its start.
    state: how far it was there.
    counts: what it counts.
    saved_steps: environment steps at its last checkpoint.
    learner_log: the learner's rows.
  """

  # Made by `start`.
  replay: Replay
  batches: Batches
  # Made by `make_environments`.
  evaluations: Evaluations

  def __init__(
    self,
    prepared: Run,
    disk: Disk,
    stack: contextlib.ExitStack,
  ):
    """Claims the work directory, and looks what to go on from.

    Args:
      prepared: what the run is.
      disk: says what cannot be written.
      stack: ends what is made here and later.
    """
    self.name = prepared.name
    self.experiment = prepared.experiment
    self.parts = prepared.parts
    self.schedule = prepared.schedule
    self.seeds = prepared.seeds
    self._stack = stack
    self._workdir = prepared.open_workdir()
    if self._workdir is not None:
      stack.callback(self._workdir.close)
    self.records = run_records.RunRecords(
      self._workdir.path if self._workdir else None,
      self.experiment.checkpointing,
      self.experiment.logger_factory,
      disk,
    )
    self.checkpoint = self.records.latest_checkpoint()
    self.state = RunState.of(self.checkpoint)
    self.counts = Counts(self.state.counts)
    self.saved_steps = self.state.actor_steps
    # Until there is a row: not every learner asks for a logger.
    self.learner_log = metrics.SampledLogger(
      metrics.NoLogger(), metrics.every(_LEARNER_LOG_PERIOD)
    )

  @property
  def steps(self) -> int:
    """Environment steps made."""
    return self.counts[ACTOR_STEPS]

  @property
  def learner_counter(self) -> Counter:
    """Counts the learner's steps."""
    return Counter(self.counts, "learner")

  def start(self, start_replay: Callable[..., Replay]) -> None:
    """Starts replay, and drops what was logged after the checkpoint."""
    with _as_start_error():
      self.replay = start_replay(self._workdir, self.checkpoint)
      self._stack.callback(self.replay.stop)
      self.records.rewind(self.checkpoint)
    self.batches = Batches(self.replay, self.parts)

  def make_learner_log(
    self, note: Callable[[str], Any], *args: Any
  ) -> metrics.SampledLogger:
    """Makes the learner's logger.

    Args:
      note: is told what whoever watches the run is to be warned of.
      *args: label and steps_key.

    Returns:
      The logger.
    """

    def warn(message: str) -> None:
      note(f"{self.name}: {message}" if self.name else message)

    self.learner_log = metrics.SampledLogger(
      self.records.logger(*args), metrics.every(_LEARNER_LOG_PERIOD), warn
    )
    self._stack.callback(self.learner_log.close)
    return self.learner_log

  def make_adders(self, num_envs: int) -> Sequence[Any]:
    """Makes what records the steps of each environment."""
    self._adders = [
      self.parts.adder(self.replay.client) for _ in range(num_envs)
    ]
    for adder in self._adders:
      # What is on its way then arrives before replay stops: Acme's adders would
      # wait for that in vain when they are deleted.
      if adder is not None:
        self._stack.callback(adder.reset)
    return self._adders

  def make_environments(self, actor: Any, index: int) -> None:
    """Makes as many environments as adders, which make their steps together.

    Args:
      actor: observes their steps.
      index: the actor's number of this seed.
    """
    make_group = self.experiment.environment_group_factory
    if make_group is None:
      make = self.experiment.environment_factory
      make_group = functools.partial(environment_groups.make_one_by_one, make)
    seeds = [
      self.seeds.environment(self.steps, number)
      for number in range(len(self._adders))
    ]
    group = self._stack.enter_context(
      environment_groups.opened(lambda: make_group(seeds))
    )
    logger = self.records.logger("actor", ACTOR_STEPS)
    self._stack.callback(logger.close)
    self._episodes = Episodes(
      group, actor, index, self.experiment.observers, self.counts, logger
    )
    self.evaluations = Evaluations(
      self._make_evaluation_environment, self.records, self.state.evaluated_at
    )
    self._stack.callback(self.evaluations.close)

  def _make_evaluation_environment(self, actor_steps: int) -> Any:
    """Makes the environment of an evaluation at an environment step."""
    environment = self.experiment.environment_factory(
      self.seeds.evaluation_environment(actor_steps)
    )
    return time_steps.Checked(
      environment,
      self.parts.environment_spec.observations,
      f"{self.name}, evaluation" if self.name else "Evaluation",
    )

  def observations(self, num_environments: int) -> Sequence[Any]:
    """Looks at the first environments; begins an episode where none goes on."""
    with self._at_this_step():
      return self._episodes.observations(num_environments)

  def _at_this_step(self) -> contextlib.AbstractContextManager[None]:
    """Says at which environment step a value turned up: see `at_step_of`."""
    return at_step_of([self], self.name)

  def step(self, actions: Sequence[np.ndarray]) -> None:
    """Makes a step in as many environments as there are actions."""
    with self._at_this_step():
      self._episodes.step(actions)
      self.batches.prepare()

  def save(self, learner: Any) -> None:
    """Writes a checkpoint with a learner, if the run keeps any and can."""
    for adder in self._adders:
      if hasattr(adder, "flush"):
        adder.flush()
    state = RunState(
      self.steps, self.evaluations.evaluated_at, self.counts.get_counts()
    )
    if self.records.disk.attempt(
      f"a checkpoint in {self.records.path}",
      lambda: self.records.save(learner, state, self.replay.save),
    ):
      self.saved_steps = self.steps
