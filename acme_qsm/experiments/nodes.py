"""What each process of a distributed run does, whatever engine starts it."""

import contextlib
import dataclasses
import logging
import pathlib
import queue
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dm_env
import jax
import numpy as np
import reverb
import tensorflow as tf
from acme import core
from acme.utils import counting
from acme.utils import loggers as acme_loggers
from reverb import errors as reverb_errors

from acme_qsm.experiments import evaluation
from acme_qsm.experiments import loggers
from acme_qsm.experiments import plotting
from acme_qsm.experiments import replay
from acme_qsm.experiments import rpc
from acme_qsm.experiments import supervision
from acme_qsm.experiments.checkpointing import Checkpointer
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.coordinator import ACTOR_STEPS
from acme_qsm.experiments.coordinator import LEARNER_STEPS
from acme_qsm.experiments.coordinator import Phase
from acme_qsm.experiments.link import Link
from acme_qsm.experiments.run_state import RunState
from acme_qsm.types import NonFiniteError

_POLL_SECONDS = 0.2
# How long no data may come, once all steps are made, for there to be no more.
_DRAINED_SECONDS = 2.0
_VARIABLES_SECONDS = 30.0
# An environment that makes fewer steps than these before it fails has failed
# once more in a row; after so many of them in a row an actor gives up.
_STABLE_STEPS = 20
_MAX_ENVIRONMENT_FAILURES = 5
# How long it may take to make an environment, which may have much to load.
_MAKE_SECONDS = 300.0
_ACTOR_LOG_SECONDS = 10.0
_LEARNER_LOG_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Run:
  """What all processes of a run are told.

  Attributes:
    experiment: what to run.
    environment_spec: its environment's spec.
    title: what the run is called where it is shown.
    eval_every: environment steps between evaluations.
    num_eval_episodes: episodes of each evaluation; 0 for none.
    key: what the run's processes know each other by.
    host: the IP address that this machine's servers listen on.
    path: the work directory, None to keep no files.
    run_id: tells this run's replay from another's.
    hang_seconds: how long one call of an environment may take.
  """

  experiment: ExperimentConfig
  environment_spec: Any
  title: str
  eval_every: int
  num_eval_episodes: int
  key: bytes
  host: str
  path: pathlib.Path | None
  run_id: str
  hang_seconds: float

  def checkpointer(self) -> Checkpointer | None:
    """What the run's checkpoints are written and found with, if it has any."""
    if self.path is None or self.experiment.checkpointing is None:
      return None
    return Checkpointer(
      self.path / "checkpoints", self.experiment.checkpointing.max_to_keep
    )

  def logger(self, *args: Any) -> Any:
    """Makes a logger from (label, steps_key, instance)."""
    factory, path = self.experiment.logger_factory, self.path
    if factory is not None:
      return loggers.LossyLogger(lambda: factory(*args))
    if path is not None:
      return loggers.LossyLogger(
        lambda: loggers.make_logger_factory(path)(*args)
      )
    return acme_loggers.NoOpLogger()

  def random_key(self, *purpose: int) -> jax.Array:
    """A PRNG key of its own for each purpose."""
    return jax.random.PRNGKey(self.seed(*purpose))

  def seed(self, *purpose: int) -> int:
    """A seed of its own for each purpose."""
    sequence = np.random.SeedSequence([self.experiment.seed, *purpose])
    return int(sequence.generate_state(1)[0])


# First parts of purposes that seeds are for.
_ACTOR, _EVALUATOR, _LEARNER = range(3)


def run_node(run: Run, link: Link) -> None:
  """Does the work of one process until the run ends.

  Args:
    run: the run.
    link: its link, under its name: "replay", "learner", "evaluator" or
      "actor_<i>".
  """
  role, _, index = link.name.partition("_")
  functions: dict[str, Callable[[], None]] = {
    "replay": lambda: _run_replay(run, link),
    "learner": lambda: _run_learner(run, link),
    "evaluator": lambda: _run_evaluator(run, link),
    "actor": lambda: _Actor(run, link, int(index)).run(),
  }
  functions[role]()
  link.state = "done"
  link.close()


def _run_replay(run: Run, link: Link) -> None:
  experiment = run.experiment
  builder = experiment.builder
  spec = run.environment_spec
  networks = experiment.network_factory(spec)
  policy = builder.make_policy(networks, spec, evaluation=False)
  checkpointer = run.checkpointer()
  checkpoint = checkpointer.latest() if checkpointer else None
  content = checkpoint.path / "replay" if checkpoint else None
  if content is not None and not content.is_dir():
    logging.warning("The checkpoint has no replay content: it fills anew.")
    content = None

  def serve(port: int | None) -> replay.ReplayServer:
    return replay.ReplayServer(
      builder.make_replay_tables(spec, policy),
      staging=replay.staging_folder(run.path) if run.path else None,
      checkpoint=content,
      host=run.host,
      port=port,
      run_id=run.run_id,
    )

  # Where it was before, if it was: there its clients wait for it.
  host, _, port = link.orders.addresses.get("replay", "").rpartition(":")
  try:
    server = serve(int(port) if host == run.host else None)
  except ValueError as error:
    if host != run.host:
      raise
    logging.warning("Replay cannot be where it was: %s", error)
    server = serve(None)
  # Who is connected to it sees at once when this process ends.
  ties = rpc.Server({}, run.key, run.host)
  link.call("announce", "replay_tie", f"{run.host}:{ties.port}")
  link.call("announce", "replay", server.address)
  link.state = "serving"
  while not link.over:
    info = server.info()
    limiter = info.rate_limiter_info
    link.metrics = {
      "size": info.current_size,
      "inserts": limiter.insert_stats.completed,
      "samples": limiter.sample_stats.completed,
    }
    time.sleep(_POLL_SECONDS)
  server.stop()
  ties.stop()


class _RunIsOverError(Exception):
  """There is nothing more to do for this process."""


class _Replay:
  """A run's replay, as far as one of its processes is connected to it.

  Reverb's clients connect to an address again and again, whoever answers there.
  So whether the replay that was there still lives is seen from a tie to it.
  """

  def __init__(
    self, run: Run, link: Link, on_loss: Callable[[], None] = lambda: None
  ):
    """Connects, once it is this run's replay that answers.

    Args:
      run: the run.
      link: this process's link.
      on_loss: called, from a thread, when replay is gone.

    Raises:
      _RunIsOverError: if the run is to end before.
    """
    self._link = link
    while True:
      address = link.wait_for("replay")
      if address is None:
        raise _RunIsOverError
      try:
        # First, so that who is checked is who is tied to.
        self._tie = rpc.Tie(
          link.orders.addresses["replay_tie"], run.key, on_loss
        )
        self._client = replay.connect(address, run.run_id)
        return
      except ConnectionError as error:
        logging.warning("%s", error)
        time.sleep(_POLL_SECONDS)

  @property
  def lost(self) -> bool:
    """Whether it has ended, or is elsewhere by now."""
    address = self._link.orders.addresses.get("replay")
    return self._tie.cut.is_set() or address != self._client.server_address

  @property
  def client(self) -> reverb.Client:
    """Its client; ConnectionError if it is lost."""
    if self.lost:
      raise ConnectionError("Replay is gone.")
    return self._client


class _Batches:
  """Batches from replay, fetched ahead; survives a replay that starts again.

  Attributes:
    replay: where they come from.
    seconds_waited: how long the learner had to wait for them, in all.
  """

  def __init__(self, run: Run, link: Link):
    self._run = run
    self._link = link
    self.seconds_waited = 0.0
    self._start_fetching()

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    start = time.monotonic()
    while True:
      if self._link.ending:
        raise _RunIsOverError
      if self.replay.lost:
        self._start_fetching()
        start = time.monotonic()
      try:
        batch = self._queue.get(timeout=_POLL_SECONDS)
        self.seconds_waited += time.monotonic() - start
        if isinstance(batch, Exception):
          raise batch
        return batch
      except queue.Empty:
        waited = time.monotonic() - start
        learning = self._link.orders.phase is Phase.LEARNING
        if learning and waited > _DRAINED_SECONDS:
          raise _RunIsOverError from None

  def _start_fetching(self) -> None:
    """Fetches from where replay is, in a thread and a queue of its own."""
    self.replay = _Replay(self._run, self._link)
    self._queue: queue.Queue = queue.Queue(maxsize=1)
    threading.Thread(
      target=self._fetch,
      args=(self.replay, self._queue),
      name="batches",
      daemon=True,
    ).start()

  def _fetch(self, replay: _Replay, batches: queue.Queue) -> None:
    make_iterator = self._run.experiment.builder.make_dataset_iterator
    while not replay.lost and not self._link.over:
      try:
        for batch in make_iterator(replay.client):
          self._put(batch, replay, batches)
          if replay.lost or self._link.over:
            return
      except (
        *(tf.errors.OpError, ConnectionError, RuntimeError),
        reverb_errors.ReverbError,
      ) as error:
        logging.warning("Replay does not answer; trying again: %s", error)
        time.sleep(_POLL_SECONDS)
      except Exception as error:  # The learner's to raise.
        self._put(error, replay, batches)
        return

  def _put(self, batch: Any, replay: _Replay, batches: queue.Queue) -> None:
    # Once replay is lost, who knows whose batches they are.
    while not replay.lost and not self._link.over:
      try:
        batches.put(batch, timeout=_POLL_SECONDS)
        return
      except queue.Full:
        pass


class _RunCounts:
  """The counter above the learner's: the whole run's counts."""

  def __init__(self, link: Link):
    self._link = link
    self._own: dict[str, float] = {}

  def increment(self, **counts: float) -> dict[str, float]:
    for name, value in counts.items():
      self._own[name] = self._own.get(name, 0) + value
    return self.get_counts()

  def get_counts(self) -> dict[str, float]:
    return {**self._link.orders.counts, **self._own}


def _run_learner(run: Run, link: Link) -> None:
  experiment = run.experiment
  builder, spec = experiment.builder, run.environment_spec
  try:
    batches = _Batches(run, link)
  except _RunIsOverError:
    link.call("done", "learner")
    return
  checkpointer = run.checkpointer()
  checkpoint = checkpointer.latest() if checkpointer else None
  counts = _RunCounts(link)
  counter = counting.Counter(counts, "learner", time_delta=0.0)  # pyright: ignore[reportArgumentType]
  learner = builder.make_learner(
    run.random_key(_LEARNER),
    experiment.network_factory(spec),
    batches,
    lambda *args: acme_loggers.TimeFilter(
      run.logger(*args), _LEARNER_LOG_SECONDS
    ),
    spec,
    batches.replay.client,
    counter,
  )
  if checkpoint is not None:
    learner.restore(checkpoint.load("learner", learner.save()))
    counts.increment(
      **{
        name: count
        for name, count in RunState.of(checkpoint).counts.items()
        if name.startswith("learner_")
      }
    )
  failures = 0

  def replay_client() -> reverb.Client:
    # A run that ends does not wait for batches any more, and so does not see
    # that replay has come back.
    try:
      return batches.replay.client
    except ConnectionError:
      address = link.orders.addresses["replay"]
      return replay.connect(address, run.run_id)

  def save() -> str | None:
    """Returns why no checkpoint could be written."""
    nonlocal failures
    if checkpointer is None or run.path is None:
      return None
    staging = replay.staging_folder(run.path)
    totals = counts.get_counts()
    actor_steps = int(totals.get(ACTOR_STEPS, 0))
    try:
      client = replay_client()
      state = RunState(
        actor_steps,
        _last_evaluation(run),
        replay.num_samples(client),
        totals,
      )
      checkpointer.save(
        actor_steps,
        {"learner": learner.save()},
        state.to_metadata(),
        lambda folder: replay.save(client, staging, folder / "replay"),
      )
    except (OSError, RuntimeError, reverb_errors.ReverbError) as error:
      failures += 1
      link.metrics["checkpoint_failures"] = failures
      logging.warning("No checkpoint could be written: %s", error)
      return f"the last checkpoint could not be written: {error}"
    return None

  def variables(names: Sequence[str]) -> tuple[list[Any], float]:
    values = jax.device_get(learner.get_variables(names))
    return values, counts.get_counts().get(LEARNER_STEPS, 0)

  server = rpc.Server({"variables": variables}, run.key, run.host)
  link.call("announce", "learner", f"{run.host}:{server.port}")
  period = (
    60.0 * experiment.checkpointing.time_delta_minutes
    if experiment.checkpointing
    else float("inf")
  )
  start = saved_at = time.monotonic()
  link.state = "learning"
  try:
    while True:
      learner.step()
      now = time.monotonic()
      link.metrics.update(
        {
          LEARNER_STEPS: counts.get_counts().get(LEARNER_STEPS, 0),
          "waiting_share": batches.seconds_waited / (now - start),
        }
      )
      if now - saved_at > period:
        save()
        saved_at = time.monotonic()
  except _RunIsOverError:
    pass
  except NonFiniteError as error:
    link.call("fail", f"The learner stopped: {error}")
    return
  link.state = "saving"
  failure = save()
  if failure is not None:
    link.call("fail", failure)
    return
  link.report()
  link.call("done", "learner")
  link.state = "serving"
  # Others may still ask for the parameters.
  while not link.over:
    time.sleep(_POLL_SECONDS)
  server.stop()


def _last_evaluation(run: Run) -> int:
  """The environment step of the last evaluation, -1 if there was none."""
  path = run.path / "logs" / "evaluator.csv" if run.path else None
  if path is None or not path.exists():
    return -1
  steps = loggers.read_csv(path).get(ACTOR_STEPS, np.zeros(0))
  return int(steps[-1]) if len(steps) else -1


class _RemoteVariables(core.VariableSource):
  """The learner's parameters; the last ones again if it does not answer.

  Attributes:
    learner_steps: the learner steps behind the last ones.
  """

  def __init__(self, run: Run, link: Link):
    self._run = run
    self._link = link
    self._client: rpc.Client | None = None
    self._last: dict[tuple[str, ...], list[Any]] = {}
    self.learner_steps = 0.0

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    key = tuple(names)
    while True:
      try:
        if self._client is None:
          address = self._link.wait_for("learner")
          if address is None:
            raise _RunIsOverError
          self._client = rpc.Client(address, self._run.key, _VARIABLES_SECONDS)
        values, self.learner_steps = self._client.call("variables", list(names))
        self._last[key] = values
        return values
      except ConnectionError as error:
        logging.warning("The learner does not answer: %s", error)
        # It may be elsewhere by now.
        self._client = None
        if key in self._last:
          return self._last[key]
        time.sleep(_POLL_SECONDS)


class _EnvironmentFailedError(Exception):
  """An environment cannot be made, or raised an error."""


class _Environment(dm_env.Environment):
  """A run's environment, each call of which must end in time.

  Attributes:
    environment: the environment itself.
  """

  def __init__(self, run: Run, link: Link, *seed_purpose: int):
    self._link = link
    self._seconds = run.hang_seconds
    with self._calling(_MAKE_SECONDS):
      self.environment = run.experiment.environment_factory(
        run.seed(*seed_purpose)
      )

  def reset(self) -> dm_env.TimeStep:
    with self._calling(self._seconds):
      return self.environment.reset()

  def step(self, action: Any) -> dm_env.TimeStep:
    with self._calling(self._seconds):
      return self.environment.step(action)

  def observation_spec(self) -> Any:
    return self.environment.observation_spec()

  def action_spec(self) -> Any:
    return self.environment.action_spec()

  @contextlib.contextmanager
  def _calling(self, seconds: float) -> Iterator[None]:
    with self._link.calling_environment(seconds):
      try:
        yield
      except Exception as error:
        raise _EnvironmentFailedError(
          f"The environment raised {type(error).__name__}: {error}"
        ) from error


class _Actor:
  """Acts in an environment and records what happens."""

  def __init__(self, run: Run, link: Link, index: int):
    self._run = run
    self._link = link
    self._index = index
    self._incarnation = link.orders.incarnation
    self._environments_made = 0
    self._totals = {ACTOR_STEPS: 0.0, "actor_episodes": 0.0}

  def _purpose(self, *purpose: int) -> tuple[int, ...]:
    """The seeds' purpose: see `Run.seed`."""
    # What came before in the run counts too: a run that goes on, or a process
    # that was started again, must not see the same random numbers again.
    steps = int(self._link.orders.counts.get(ACTOR_STEPS, 0))
    return _ACTOR, self._index, self._incarnation, steps, *purpose

  def run(self) -> None:
    """Acts until the run is over, or the environment has failed too often."""
    run, link = self._run, self._link
    experiment = run.experiment
    builder, spec = experiment.builder, run.environment_spec
    try:
      client = _Replay(run, link, on_loss=link.lose_replay).client
    except _RunIsOverError:
      return
    # What is on its way to a replay that moves could block the actor for ever.
    link.depend_on_replay(client.server_address)
    policy = builder.make_policy(
      experiment.network_factory(spec), spec, evaluation=False
    )
    variables = self._variables = _RemoteVariables(run, link)
    adder = builder.make_adder(client, spec, policy)
    self._actor = builder.make_actor(
      run.random_key(*self._purpose(0)), policy, spec, variables, adder
    )
    self._logger = acme_loggers.TimeFilter(
      run.logger("actor", ACTOR_STEPS, self._index), _ACTOR_LOG_SECONDS
    )
    failures = 0
    failed_at = 0.0
    environment = None
    try:
      self._actor.update(wait=True)
      link.state = "acting"
      while True:
        try:
          if environment is None:
            environment = self._make_environment()
          self._run_episode(environment)
        except (_EnvironmentFailedError, NonFiniteError) as error:
          steps = self._totals[ACTOR_STEPS]
          failures = 1 + (failures if steps - failed_at < _STABLE_STEPS else 0)
          failed_at = steps
          if failures >= _MAX_ENVIRONMENT_FAILURES:
            raise supervision.GiveUpError(
              f"the environment failed {failures} times in a row"
            ) from error
          logging.exception("Making a new environment.")
          link.metrics["environment_failures"] = (
            link.metrics.get("environment_failures", 0) + 1
          )
          environment = None
          adder.reset()
    except _RunIsOverError:
      adder.reset()

  def _make_environment(self) -> _Environment:
    self._environments_made += 1
    return _Environment(
      self._run, self._link, *self._purpose(1, self._environments_made)
    )

  def _wait_for_allowance(self) -> None:
    """Waits until another step may be made; raises if none ever may."""
    link = self._link
    while self._totals[ACTOR_STEPS] >= link.step_limit:
      # Who is cut off waits, or is ended by its link.
      with contextlib.suppress(ConnectionError):
        link.report()
      if link.ending or link.orders.phase is not Phase.ACTING:
        raise _RunIsOverError
      if self._totals[ACTOR_STEPS] >= link.step_limit:
        time.sleep(_POLL_SECONDS)

  def _run_episode(self, environment: _Environment) -> None:
    link, actor = self._link, self._actor
    start = time.monotonic()
    episode_return, length = 0.0, 0
    timestep = environment.reset()
    actor.observe_first(timestep)
    observers = self._run.experiment.observers
    for observer in observers:
      observer.observe_first(environment.environment, timestep)
    while not timestep.last():
      if link.ending:
        raise _RunIsOverError
      self._wait_for_allowance()
      action = actor.select_action(timestep.observation)
      timestep = environment.step(action)
      actor.observe(action, timestep)
      for observer in observers:
        observer.observe(environment.environment, timestep, action)
      actor.update()
      self._totals[ACTOR_STEPS] += 1
      link.totals = dict(self._totals)
      episode_return += float(timestep.reward)
      length += 1
    self._totals["actor_episodes"] += 1
    counts = link.orders.counts
    staleness = max(
      0.0, counts.get(LEARNER_STEPS, 0) - self._variables.learner_steps
    )
    metrics = {
      "episode_return": episode_return,
      "episode_length": length,
      "steps_per_second": length / (time.monotonic() - start),
      "staleness": staleness,
    }
    link.metrics.update(metrics)
    for observer in observers:
      metrics |= observer.get_metrics()
    self._logger.write({**counts, **metrics})


def _run_evaluator(run: Run, link: Link) -> None:
  experiment = run.experiment
  builder, spec = experiment.builder, run.environment_spec
  logger = run.logger("evaluator", ACTOR_STEPS, 0)
  policy = builder.make_policy(
    experiment.network_factory(spec), spec, evaluation=True
  )
  link.state = "waiting"
  last = _last_evaluation(run)
  try:
    actor = builder.make_actor(
      run.random_key(_EVALUATOR, link.orders.incarnation),
      policy,
      spec,
      _RemoteVariables(run, link),
    )
    while not link.ending:
      orders = link.orders
      steps = int(orders.counts.get(ACTOR_STEPS, 0))
      final = orders.phase is Phase.LEARNING and orders.learner_done
      if steps // run.eval_every <= max(last, 0) // run.eval_every and not (
        final and steps > last
      ):
        if final:
          break
        time.sleep(_POLL_SECONDS)
        continue
      link.state = "evaluating"
      actor.update(wait=True)
      result = evaluation.evaluate(
        _Environment(run, link, _EVALUATOR, steps),
        actor,
        run.num_eval_episodes,
        lambda: link.ending,
      )
      if result is None:
        break
      last = steps
      logger.write({**orders.counts, ACTOR_STEPS: steps, **result})
      link.metrics = {
        key: result[key] for key in ("episode_return", "episode_return_std")
      }
      with contextlib.suppress(ConnectionError):
        link.call(
          "note",
          f"{steps:>9,} environment steps: {evaluation.describe(result)}",
        )
      if run.path is not None:
        try:
          plotting.plot_learning_curve(run.path, run.title)
        except OSError as error:
          logging.warning("The learning curve could not be drawn: %s", error)
      link.state = "waiting"
    if link.orders.phase is Phase.LEARNING:
      link.call("done", "evaluator")
  except _RunIsOverError:
    pass
