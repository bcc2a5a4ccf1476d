"""What each process of a distributed run does, whatever engine starts it."""

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

import jax
import numpy as np
import reverb
import tensorflow as tf
from acme import core
from acme.utils import counting
from acme.utils import loggers as acme_loggers

from acme_qsm.experiments import evaluation
from acme_qsm.experiments import loggers
from acme_qsm.experiments import plotting
from acme_qsm.experiments import replay
from acme_qsm.experiments import rpc
from acme_qsm.experiments.checkpointing import Checkpointer
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.coordinator import ACTOR_STEPS
from acme_qsm.experiments.coordinator import LEARNER_STEPS
from acme_qsm.experiments.coordinator import Phase
from acme_qsm.experiments.link import Link
from acme_qsm.types import NonFiniteError

_POLL_SECONDS = 0.2
# How long no data may come, once all steps are made, for there to be no more.
_DRAINED_SECONDS = 2.0
_VARIABLES_SECONDS = 30.0
_MAX_ENVIRONMENT_FAILURES = 5
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
  """

  experiment: ExperimentConfig
  environment_spec: Any
  title: str
  eval_every: int
  num_eval_episodes: int
  key: bytes
  host: str
  path: pathlib.Path | None

  def checkpointer(self) -> Checkpointer | None:
    """What the run's checkpoints are written and found with, if it has any."""
    if self.path is None or self.experiment.checkpointing is None:
      return None
    return Checkpointer(
      self.path / "checkpoints", self.experiment.checkpointing.max_to_keep
    )

  def logger(self, *args: Any) -> Any:
    """Makes a logger from (label, steps_key, instance)."""
    if self.experiment.logger_factory is not None:
      return self.experiment.logger_factory(*args)
    if self.path is None:
      return acme_loggers.NoOpLogger()
    return loggers.make_logger_factory(self.path)(*args)

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
  # Where it was before, if it was: there its clients look for it.
  before = link.call("find", "replay")
  server = replay.ReplayServer(
    builder.make_replay_tables(spec, policy),
    staging=run.path / "checkpoints" / ".replay" if run.path else None,
    checkpoint=content,
    host=run.host,
    port=int(before.rsplit(":", 1)[1]) if before else None,
  )
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


class GiveUpError(Exception):
  """This process cannot do its part; starting it again would not help."""


class _RunIsOverError(Exception):
  """There is nothing more to do for this process."""


class _Batches:
  """Batches from replay, fetched ahead; survives a replay that starts again.

  Attributes:
    seconds_waited: how long the learner had to wait for them, in all.
  """

  def __init__(self, make_iterator: Callable[[], Iterator[Any]], link: Link):
    self._make_iterator = make_iterator
    self._link = link
    self._queue: queue.Queue = queue.Queue(maxsize=1)
    self.seconds_waited = 0.0
    threading.Thread(target=self._fetch, name="batches", daemon=True).start()

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    start = time.monotonic()
    while True:
      if self._link.ending:
        raise _RunIsOverError
      try:
        batch = self._queue.get(timeout=_POLL_SECONDS)
        self.seconds_waited += time.monotonic() - start
        return batch
      except queue.Empty:
        waited = time.monotonic() - start
        learning = self._link.orders.phase is Phase.LEARNING
        if learning and waited > _DRAINED_SECONDS:
          raise _RunIsOverError from None

  def _fetch(self) -> None:
    while not self._link.over:
      try:
        for batch in self._make_iterator():
          self._put(batch)
      except tf.errors.OpError as error:
        logging.warning("Replay does not answer; trying again: %s", error)
        time.sleep(_POLL_SECONDS)

  def _put(self, batch: Any) -> None:
    while not self._link.over:
      try:
        self._queue.put(batch, timeout=_POLL_SECONDS)
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
  address = link.wait_for("replay")
  if address is None:
    link.call("done", "learner")
    return
  client = reverb.Client(address)
  batches = _Batches(lambda: builder.make_dataset_iterator(client), link)
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
    client,
    counter,
  )
  if checkpoint is not None:
    learner.restore(checkpoint.load("learner", learner.save()))
    counts.increment(
      **{
        name: count
        for name, count in checkpoint.metadata["counter"]["counts"].items()
        if name.startswith("learner_")
      }
    )
  failures = 0

  def save() -> None:
    nonlocal failures
    if checkpointer is None:
      return
    totals = counts.get_counts()
    try:
      checkpointer.save(
        int(totals.get(ACTOR_STEPS, 0)),
        {"learner": learner.save()},
        {
          "actor_steps": int(totals.get(ACTOR_STEPS, 0)),
          "evaluated_at": _last_evaluation(run),
          "samples": _num_samples(client),
          # As Acme's counter saves it.
          "counter": {"counts": totals, "cache": {}},
        },
        lambda folder: replay.save(client, folder / "replay"),
      )
    except (OSError, RuntimeError) as error:
      failures += 1
      link.metrics["checkpoint_failures"] = failures
      logging.warning("No checkpoint could be written: %s", error)

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
  save()
  link.report()
  link.call("done", "learner")
  link.state = "serving"
  # Others may still ask for the parameters.
  while not link.over:
    time.sleep(_POLL_SECONDS)
  server.stop()


def _num_samples(client: reverb.Client) -> int:
  """The samples ever taken from the first table."""
  (info, *_) = client.server_info(timeout=10).values()
  return info.rate_limiter_info.sample_stats.completed


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


class _Actor:
  """Acts in an environment and records what happens."""

  def __init__(self, run: Run, link: Link, index: int):
    self._run = run
    self._link = link
    self._index = index
    self._incarnation = link.orders.incarnation
    self._environments_made = 0
    self._totals = {ACTOR_STEPS: 0.0, "actor_episodes": 0.0}

  def _seed(self, *purpose: int) -> int:
    # What came before in the run counts too: a run that goes on, or a process
    # that was started again, must not see the same random numbers again.
    steps = int(self._link.orders.counts.get(ACTOR_STEPS, 0))
    return self._run.seed(
      _ACTOR, self._index, self._incarnation, steps, *purpose
    )

  def run(self) -> None:
    """Acts until the run is over, or the environment has failed too often."""
    run, link = self._run, self._link
    experiment = run.experiment
    builder, spec = experiment.builder, run.environment_spec
    address = link.wait_for("replay")
    if address is None:
      return
    policy = builder.make_policy(
      experiment.network_factory(spec), spec, evaluation=False
    )
    variables = self._variables = _RemoteVariables(run, link)
    adder = builder.make_adder(reverb.Client(address), spec, policy)
    self._actor = builder.make_actor(
      jax.random.PRNGKey(self._seed(0)), policy, spec, variables, adder
    )
    self._logger = acme_loggers.TimeFilter(
      run.logger("actor", ACTOR_STEPS, self._index), _ACTOR_LOG_SECONDS
    )
    failures = 0
    environment = None
    try:
      self._actor.update(wait=True)
      link.state = "acting"
      while True:
        try:
          if environment is None:
            environment = self._make_environment()
          self._run_episode(environment)
          failures = 0
        except (_RunIsOverError, ConnectionError):
          raise
        except Exception as error:
          failures += 1
          if failures >= _MAX_ENVIRONMENT_FAILURES:
            raise GiveUpError(
              f"the environment failed {failures} times in a row"
            ) from error
          logging.exception("The environment failed; making a new one.")
          link.metrics["environment_failures"] = (
            link.metrics.get("environment_failures", 0) + 1
          )
          environment = None
          adder.reset()
    except _RunIsOverError:
      adder.reset()

  def _make_environment(self):
    self._environments_made += 1
    with self._link.calling_environment():
      return self._run.experiment.environment_factory(
        self._seed(1, self._environments_made)
      )

  def _wait_for_allowance(self) -> None:
    """Waits until another step may be made; raises if none ever may."""
    link = self._link
    while self._totals[ACTOR_STEPS] >= link.step_limit:
      orders = link.report()
      if link.ending or orders.phase is not Phase.ACTING:
        raise _RunIsOverError
      if not orders.allowance:
        time.sleep(_POLL_SECONDS)

  def _run_episode(self, environment: Any) -> None:
    link, actor = self._link, self._actor
    start = time.monotonic()
    episode_return, length = 0.0, 0
    with link.calling_environment():
      timestep = environment.reset()
    actor.observe_first(timestep)
    while not timestep.last():
      if link.ending:
        raise _RunIsOverError
      self._wait_for_allowance()
      action = actor.select_action(timestep.observation)
      with link.calling_environment():
        timestep = environment.step(action)
      actor.observe(action, timestep)
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
      with link.calling_environment():
        environment = experiment.environment_factory(
          run.seed(_EVALUATOR, steps)
        )
      result = evaluation.evaluate(
        environment,
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
      if run.path is not None:
        plotting.plot_learning_curve(run.path, run.title)
      link.state = "waiting"
    if link.orders.phase is Phase.LEARNING:
      link.call("done", "evaluator")
  except _RunIsOverError:
    pass
