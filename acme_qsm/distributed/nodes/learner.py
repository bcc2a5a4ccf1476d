"""The process that learns."""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import jax
import reverb
import tensorflow as tf
from acme.utils import counting
from acme.utils import loggers as acme_loggers
from reverb import errors as reverb_errors

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import ACTOR_STEPS
from acme_qsm.distributed.coordination.coordinator import LEARNER_STEPS
from acme_qsm.distributed.coordination.coordinator import Phase
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.connections import ReplayConnection
from acme_qsm.distributed.nodes.run import LEARNER
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError
from acme_qsm.experiments.records.run_state import RunState
from acme_qsm.replay import reverb_server
from acme_qsm.types import NonFiniteError

# How long no data may come, once all steps are made, for there to be no more.
_DRAINED_SECONDS = 2.0
_LOG_SECONDS = 10.0


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
        raise RunIsOverError
      if self.replay.lost:
        self._start_fetching()
        start = time.monotonic()
      try:
        batch = self._queue.get(timeout=POLL_SECONDS)
        self.seconds_waited += time.monotonic() - start
        if isinstance(batch, Exception):
          raise batch
        return batch
      except queue.Empty:
        waited = time.monotonic() - start
        learning = self._link.orders.phase is Phase.LEARNING
        if learning and waited > _DRAINED_SECONDS:
          raise RunIsOverError from None

  def _start_fetching(self) -> None:
    """Fetches from where replay is, in a thread and a queue of its own."""
    self.replay = ReplayConnection(self._run, self._link)
    self._queue: queue.Queue = queue.Queue(maxsize=1)
    threading.Thread(
      target=self._fetch,
      args=(self.replay, self._queue),
      name="batches",
      daemon=True,
    ).start()

  def _fetch(self, replay: ReplayConnection, batches: queue.Queue) -> None:
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
        time.sleep(POLL_SECONDS)
      except Exception as error:  # The learner's to raise.
        self._put(error, replay, batches)
        return

  def _put(
    self, batch: Any, replay: ReplayConnection, batches: queue.Queue
  ) -> None:
    # Once replay is lost, who knows whose batches they are.
    while not replay.lost and not self._link.over:
      try:
        batches.put(batch, timeout=POLL_SECONDS)
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


def run_learner(run: Run, link: Link) -> None:
  """Learns until the run is over, and saves."""
  experiment = run.experiment
  builder, spec = experiment.builder, run.environment_spec
  try:
    batches = _Batches(run, link)
  except RunIsOverError:
    if not link.evicted:
      link.call("done", "learner")
    return
  checkpointer = run.checkpointer()
  checkpoint = checkpointer.latest() if checkpointer else None
  counts = _RunCounts(link)
  counter = counting.Counter(counts, "learner", time_delta=0.0)  # pyright: ignore[reportArgumentType]
  learner = builder.make_learner(
    run.random_key(LEARNER),
    experiment.network_factory(spec),
    batches,
    lambda *args: acme_loggers.TimeFilter(run.logger(*args), _LOG_SECONDS),
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
      return reverb_server.connect(address, run.run_id)

  def save() -> str | None:
    """Returns why no checkpoint could be written."""
    nonlocal failures
    if checkpointer is None or run.path is None:
      return None
    staging = reverb_server.staging_folder(run.path)
    totals = counts.get_counts()
    actor_steps = int(totals.get(ACTOR_STEPS, 0))
    try:
      client = replay_client()
      state = RunState(
        actor_steps,
        run.last_evaluation(),
        totals,
      )
      checkpointer.save(
        actor_steps,
        {"learner": learner.save()},
        state.to_metadata(),
        lambda folder: reverb_server.save(client, staging, folder / "replay"),
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
  link.call("announce", "learner", server.address)
  period = (
    60.0 * experiment.checkpointing.time_delta_minutes
    if experiment.checkpointing
    else float("inf")
  )
  saved_at = window_start = time.monotonic()
  waited_before = batches.seconds_waited
  link.metrics["waiting_share"] = 0.0
  link.state = "learning"
  try:
    while True:
      learner.step()
      now = time.monotonic()
      link.metrics[LEARNER_STEPS] = counts.get_counts().get(LEARNER_STEPS, 0)
      if now - window_start > _LOG_SECONDS:
        waited = batches.seconds_waited - waited_before
        link.metrics["waiting_share"] = waited / (now - window_start)
        waited_before, window_start = batches.seconds_waited, now
      if now - saved_at > period:
        save()
        saved_at = time.monotonic()
  except RunIsOverError:
    pass
  except NonFiniteError as error:
    link.call("fail", f"The learner stopped: {error}")
    return
  link.state = "saving"
  failure = save()
  if link.evicted:  # It goes on from there when it is started again.
    return
  if failure is not None:
    link.call("fail", failure)
    return
  link.report()
  link.call("done", "learner")
  link.state = "serving"
  # Others may still ask for the parameters.
  while not (link.over or link.evicted):
    time.sleep(POLL_SECONDS)
  server.stop()
