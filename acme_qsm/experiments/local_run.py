"""Acting, learning and evaluating in turn, in one process."""

import contextlib
import pathlib
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import jax
import numpy as np
from acme import specs
from acme.utils import counting
from acme.utils import loggers as acme_loggers

from acme_qsm.experiments import evaluation
from acme_qsm.experiments import native_output
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.interruption import Interruption
from acme_qsm.experiments.progress import Progress
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records import loggers
from acme_qsm.experiments.records import plotting
from acme_qsm.experiments.records import workdir as workdir_lib
from acme_qsm.experiments.records.run_state import RunState
from acme_qsm.replay import reverb_server
from acme_qsm.types import NonFiniteError

# Learner steps between rows of the learner's log.
_LEARNER_LOG_PERIOD = 500
# Environment steps between updates of the display.
_DISPLAY_PERIOD = 20
# What the display shows of the learner's metrics, where there are such.
_DISPLAYED_METRICS = ("critic_loss", "denoiser_loss", "q_value")


@contextlib.contextmanager
def _as_experiment_error() -> Iterator[None]:
  try:
    yield
  except ValueError as error:
    raise ExperimentError(str(error)) from error


def run_experiment(
  experiment: ExperimentConfig,
  eval_every: int = 100,
  num_eval_episodes: int = 1,
) -> None:
  """Runs an experiment in this process, from where it was left.

  Every environment step is followed by as many learner steps as the replay
  table's samples per insert call for. They are computed while the environment
  makes its next step, so that an action is chosen with the parameters before
  the newest learner steps; an evaluation has the newest. With a work directory
  (`experiment.checkpointing`), the run leaves there its configuration, logs,
  checkpoints and learning curve, and goes on from its last checkpoint if it was
  interrupted: by SIGINT or SIGTERM, which first make it save one, or by
  anything else.

  Args:
    experiment: what to run.
    eval_every: environment steps between evaluations, positive.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluation.

  Raises:
    ExperimentError: if an argument, the environment or the work directory
      cannot be used; before anything is started.
    CheckpointError: if none of the run's checkpoints can be read.
    NonFiniteError: if the environment or a loss gives a NaN or an infinity.
    KeyboardInterrupt: after SIGINT, once a checkpoint is written.
    SystemExit: after SIGTERM, likewise.
  """
  if eval_every < 1:
    raise ExperimentError(f"eval_every must be positive, got {eval_every}.")
  if num_eval_episodes < 0:
    raise ExperimentError(
      f"num_eval_episodes must not be negative, got {num_eval_episodes}."
    )
  if experiment.evaluator_factories is not None:
    num_eval_episodes = 0
  with contextlib.ExitStack() as stack:
    run = _LocalRun(experiment, eval_every, num_eval_episodes, stack)
    run.run()


class _Batches:
  """A dataset whose next batch can be fetched before it is asked for.

  Attributes:
    num_samples: the samples in the batches that were given out.
  """

  def __init__(self, dataset: Iterator[Any], num_samples: int):
    self._dataset = dataset
    self._fetched: Any = None
    self.num_samples = num_samples

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    self.fetch()
    batch, self._fetched = self._fetched, None
    self.num_samples += jax.tree.leaves(batch)[0].shape[0]
    return batch

  def fetch(self) -> None:
    """Fetches the next batch, unless that was done."""
    if self._fetched is None:
      self._fetched = next(self._dataset)


class _LearnerLogger(acme_loggers.Logger):
  """Remembers the last values and passes every so many on."""

  def __init__(self, logger: acme_loggers.Logger):
    self._logger = acme_loggers.GatedFilter.periodic(
      logger, _LEARNER_LOG_PERIOD
    )
    self.last: dict[str, Any] = {}

  def write(self, data: Any) -> None:
    self.last = data
    self._logger.write(data)

  def close(self) -> None:
    self._logger.close()


class _LocalRun:
  """The parts of a run, and the loop over them."""

  _learner_logger: _LearnerLogger

  def __init__(
    self,
    experiment: ExperimentConfig,
    eval_every: int,
    num_eval_episodes: int,
    stack: contextlib.ExitStack,
  ):
    self._experiment = experiment
    self._eval_every = eval_every
    self._num_eval_episodes = num_eval_episodes
    builder = experiment.builder

    # What can be wrong is found before anything is started.
    self._path: pathlib.Path | None = None
    checkpoint = None
    run_id = ""
    with _as_experiment_error():
      environment = experiment.environment_factory(experiment.seed)
      spec = experiment.environment_spec or specs.make_environment_spec(
        environment
      )
      networks = experiment.network_factory(spec)
      policy = builder.make_policy(networks, spec, evaluation=False)
      tables = builder.make_replay_tables(spec, policy)
      reverb_server.require_ratio(tables[0])
      if experiment.checkpointing is not None:
        workdir = workdir_lib.open_workdir(
          experiment.checkpointing, workdir_lib.describe_run(experiment, spec)
        )
        stack.callback(workdir.close)
        self._path, run_id = workdir.path, workdir.run_id
    if experiment.checkpointing is not None and self._path:
      self._checkpointer = checkpointing.Checkpointer(
        self._path / "checkpoints", experiment.checkpointing.max_to_keep
      )
      checkpoint = self._checkpointer.latest()

    # From here on, work.
    stack.enter_context(
      native_output.redirected(
        self._path / "logs" / "native.log" if self._path else None
      )
    )
    self._interruption = stack.enter_context(Interruption())
    self._replay = reverb_server.LocalReplay(
      tables,
      staging=reverb_server.staging_folder(self._path) if self._path else None,
      checkpoint=checkpoint.path / "replay" if checkpoint else None,
      run_id=run_id,
    )
    stack.callback(self._replay.stop)
    state = RunState.of(checkpoint)
    self._actor_steps = state.actor_steps
    self._evaluated_at = state.evaluated_at
    if self._path:
      # Without a checkpoint, whatever a killed run logged goes.
      loggers.rewind(self._path, self._actor_steps if checkpoint else -1)
    logger_factory: Callable[..., Any] = experiment.logger_factory or (
      loggers.make_logger_factory(self._path)
      if self._path
      else lambda *args: acme_loggers.NoOpLogger()
    )

    counter = counting.Counter(time_delta=0.0)
    counter.restore(state.counter)
    self._counter = counter
    self._actor_counter = counting.Counter(counter, "actor", time_delta=0.0)
    # What was on its way to the learner when a run was cut off is lost, but the
    # rate limiter counts it: who waited for it would wait for ever.
    num_samples = self._replay.num_samples()
    self._batches = _Batches(
      builder.make_dataset_iterator(self._replay.client), num_samples
    )
    self._samples_due = 0.0

    def learner_logger(label: str, *args: Any) -> _LearnerLogger:
      self._learner_logger = _LearnerLogger(logger_factory(label, *args))
      return self._learner_logger

    learner_key, actor_key, evaluator_key = jax.random.split(
      jax.random.PRNGKey(experiment.seed), 3
    )
    self._learner = builder.make_learner(
      learner_key,
      networks,
      self._batches,
      learner_logger,
      spec,
      self._replay.client,
      counting.Counter(counter, "learner", time_delta=0.0),
    )
    if checkpoint:
      self._learner.restore(checkpoint.load("learner", self._learner.save()))
      # The same draws again would not be new experience.
      environment = experiment.environment_factory(
        self._derived_seed("environment")
      )
      actor_key = jax.random.fold_in(actor_key, self._actor_steps)
    self._environment = environment
    self._adder = builder.make_adder(self._replay.client, spec, policy)
    # What is on its way then arrives before replay stops: Acme's adders would
    # wait for that in vain when they are deleted.
    if self._adder is not None:
      stack.callback(self._adder.reset)
    self._actor = builder.make_actor(
      actor_key, policy, spec, self._learner, self._adder
    )
    self._evaluator = builder.make_actor(
      evaluator_key,
      builder.make_policy(networks, spec, evaluation=True),
      spec,
      self._learner,
    )
    self._actor_logger = logger_factory("actor", "actor_steps", 0)
    self._evaluator_logger = logger_factory("evaluator", "actor_steps", 0)
    stack.callback(self._actor_logger.close)
    stack.callback(self._evaluator_logger.close)
    stack.callback(self._learner_logger.close)
    self._last_evaluation: dict[str, float] = {}
    self._progress = stack.enter_context(
      Progress(experiment.max_num_actor_steps, self._title, self._actor_steps)
    )
    if checkpoint:
      self._progress.note(
        f"Resumed from {checkpoint.path}: {self._actor_steps:,} environment "
        f"steps, {int(counter.get_counts().get('learner_steps', 0)):,} learner "
        f"steps, {self._replay.size():,} items in replay."
      )
    elif self._path:
      self._progress.note(f"A new run in {self._path}.")

  @property
  def _title(self) -> str:
    description = self._experiment.description
    return str(description.get("task", type(self._experiment.builder).__name__))

  def _derived_seed(self, purpose: str) -> int:
    """A seed for this purpose at this moment of the run."""
    entropy = [
      self._experiment.seed,
      self._actor_steps,
      *purpose.encode(),
    ]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])

  def run(self) -> None:
    """Runs to the end, or until interrupted."""
    experiment = self._experiment
    self._saved_at = time.monotonic()
    self._saved_steps = self._actor_steps
    self._actor.update(wait=True)
    self._evaluate_if_due()
    while (
      self._actor_steps < experiment.max_num_actor_steps
      and not self._interruption.requested()
    ):
      self._run_episode()
    if self._saved_steps != self._actor_steps or self._interruption.requested():
      self._save()
    self._interruption.raise_if_requested()
    self._progress.note(
      f"Done: {self._actor_steps:,} environment steps"
      + (f" in {self._path}." if self._path else ".")
    )

  def _run_episode(self) -> None:
    """Runs an episode, or what of it there is time for."""
    experiment = self._experiment
    environment, actor = self._environment, self._actor
    start = time.monotonic()
    episode_return, length = 0.0, 0
    timestep = environment.reset()
    with self._at_this_step():
      actor.observe_first(timestep)
    for observer in experiment.observers:
      observer.observe_first(environment, timestep)
    while not timestep.last():
      action = actor.select_action(timestep.observation)
      # JAX computes beside what follows here, up to the next action.
      self._learn()
      timestep = environment.step(action)
      with self._at_this_step():
        actor.observe(action, timestep)
        self._prepare_learning()
      self._actor_steps += 1
      self._actor_counter.increment(steps=1)
      for observer in experiment.observers:
        observer.observe(environment, timestep, action)
      episode_return += float(timestep.reward)
      length += 1
      if timestep.last():
        counts = self._actor_counter.increment(episodes=1)
        metrics = {
          "episode_return": episode_return,
          "episode_length": length,
          "steps_per_second": length / (time.monotonic() - start),
        }
        for observer in experiment.observers:
          metrics |= observer.get_metrics()
        self._actor_logger.write({**counts, **metrics})
      self._evaluate_if_due()
      self._display()
      if (
        self._actor_steps >= experiment.max_num_actor_steps
        or self._interruption.requested()
      ):
        return
      self._save_if_due()

  @contextlib.contextmanager
  def _at_this_step(self) -> Iterator[None]:
    """Says at which environment step a NaN or an infinity turned up."""
    try:
      yield
    except NonFiniteError as error:
      raise NonFiniteError(
        f"At environment step {self._actor_steps + 1}: {error}"
      ) from error

  def _prepare_learning(self) -> None:
    """Sets how many learner steps are due, and fetches the first's batch."""
    self._samples_due = self._replay.num_samples_due()
    if self._batches.num_samples < self._samples_due:
      self._batches.fetch()

  def _learn(self) -> None:
    """Starts the learner steps that are due."""
    with self._at_this_step():
      while self._batches.num_samples < self._samples_due:
        # Before it starts: the next action need not wait for it then.
        self._actor.update(wait=True)
        self._learner.step()

  def _evaluate_if_due(self) -> None:
    if (
      not self._num_eval_episodes
      or self._actor_steps == 0
      or self._evaluated_at == self._actor_steps
      or (
        self._actor_steps % self._eval_every
        and self._actor_steps < self._experiment.max_num_actor_steps
      )
    ):
      return

    def should_stop() -> bool:
      self._progress.update(self._actor_steps)
      return self._interruption.requested()

    self._learn()
    self._evaluator.update(wait=True)
    result = evaluation.evaluate(
      self._experiment.environment_factory(self._derived_seed("evaluation")),
      self._evaluator,
      self._num_eval_episodes,
      should_stop,
    )
    if result is None:
      return
    self._evaluated_at = self._actor_steps
    self._last_evaluation = result
    self._evaluator_logger.write({**self._counter.get_counts(), **result})
    self._progress.note(
      f"{self._actor_steps:>9,} environment steps: "
      + evaluation.describe(result)
    )
    if self._path:
      plotting.plot_learning_curve(self._path, self._title)

  def _display(self) -> None:
    if self._actor_steps % _DISPLAY_PERIOD:
      return
    last = self._learner_logger.last
    fields = {
      "learner steps": last.get("learner_steps", 0),
      "evaluation": self._last_evaluation.get("episode_return"),
    }
    for name in _DISPLAYED_METRICS:
      if name in last:
        fields[name.replace("_", " ")] = float(last[name])
    self._progress.update(self._actor_steps, **fields)

  def _save_if_due(self) -> None:
    config = self._experiment.checkpointing
    if config is None:
      return
    if time.monotonic() - self._saved_at >= 60.0 * config.time_delta_minutes:
      self._save()

  def _save(self) -> None:
    """Ends what is due; writes a checkpoint of it all if the run keeps any."""
    self._learn()
    if self._path is None:
      return
    staging = reverb_server.staging_folder(self._path)
    flush: Callable[[], None] | None = getattr(self._adder, "flush", None)
    if flush is not None:
      flush()
    self._checkpointer.save(
      self._actor_steps,
      {"learner": self._learner.save()},
      RunState(
        self._actor_steps,
        self._evaluated_at,
        self._counter.get_counts(),
      ).to_metadata(),
      lambda folder: reverb_server.save(
        self._replay.client, staging, folder / "replay"
      ),
    )
    self._saved_at = time.monotonic()
    self._saved_steps = self._actor_steps
