"""The process that learns."""

import contextlib
import pathlib
import time
from collections.abc import Callable
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import numpy as np
import reverb
from reverb import errors as reverb_errors

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.coordination.link import RunIsOverError
from acme_qsm.distributed.coordination.messages import COMPILING
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.nodes.batches import Batches
from acme_qsm.distributed.nodes.connections import ReplayConnection
from acme_qsm.distributed.nodes.distributed_run import DistributedRun
from acme_qsm.distributed.nodes.variables import PublishedVariables
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import Counter
from acme_qsm.experiments.counts import Counts
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.records import metrics
from acme_qsm.experiments.records import run_records
from acme_qsm.experiments.records.checkpointing import Checkpoint
from acme_qsm.experiments.records.run_state import RunState
from acme_qsm.replay import reverb_server
from acme_qsm.types import NonFiniteError

_LOG_SECONDS = 10.0
_POLL_SECONDS = 0.2
# How long a run that is interrupted waits for replay, to save what it holds.
_REPLAY_SECONDS = 20.0


def work(run: DistributedRun, link: Link) -> None:
  """Learns until the run is over, and saves."""

  def connect() -> ReplayConnection:
    return ReplayConnection(link.address_of, run.key, run.run_id)

  records = run.records(link.note)
  checkpoint = records.latest_checkpoint()
  replay = _reach_replay(link, connect, RunState.of(checkpoint).actor_steps)
  if replay is None:
    return
  link.state = COMPILING
  batches = Batches(
    replay,
    lambda: link.reach("replay", connect),
    run.parts.dataset,
    run.parts.tables()[0].name,
    ends=lambda: link.ending,
    all_acted=lambda: link.orders.phase is Phase.LEARNING,
    # What a learner step is to be compiled for is known from the first batch.
    on_first=lambda: setattr(link, "state", COMPILING),
  )
  learner = _Learner(run, link, records, batches, checkpoint)
  server = rpc.Server({"variables": learner.variables.get}, run.key, run.host)
  try:
    link.call("announce", "learner", server.address)
    _learn(link, learner)
  finally:  # Others ask for the next learner then, in whatever process.
    server.stop()


def _reach_replay(
  link: Link, connect: Callable[[], ReplayConnection], saved_steps: int
) -> ReplayConnection | None:
  """Connects to replay; None if the run ends before, once that is said.

  A run that is interrupted waits for replay for a while, to save what was done.
  """
  waits_until: float | None = None

  def count_unsaved() -> int:
    return link.count(ACTOR_STEPS) - saved_steps

  def gives_up() -> bool:
    nonlocal waits_until
    if link.over or link.evicted:
      return True
    if not link.ending:
      return False
    waits_until = waits_until or time.monotonic() + _REPLAY_SECONDS
    return count_unsaved() <= 0 or time.monotonic() > waits_until

  try:
    return link.reach("replay", connect, gives_up)
  except RunIsOverError:
    if link.evicted:
      return None
    if count_unsaved() > 0:
      link.call(
        "fail",
        f"replay was not there, so that the last {count_unsaved():,} "
        "environment steps could not be saved; the same command goes on from "
        "the last checkpoint",
      )
    else:
      link.call("done", "learner")
    return None


def _learn(link: Link, learner: "_Learner") -> None:
  """Learns, saves, and lets others ask for the parameters until the end."""
  try:
    learner.learn()
    link.state = "saving"
    failure = learner.save(_REPLAY_SECONDS)
  except NonFiniteError as error:
    failure = f"The learner stopped: {error}"
  if link.evicted:  # It goes on from there when it is started again.
    return
  if failure is not None:
    link.call("fail", failure)
    return
  link.report()
  link.call("done", "learner")
  link.state = "serving"
  while not (link.over or link.evicted):
    time.sleep(_POLL_SECONDS)


class _Learner:
  """The learner, with what it counts, shows and saves.

  Attributes:
    variables: its parameters, for others.
  """

  def __init__(
    self,
    run: DistributedRun,
    link: Link,
    records: run_records.RunRecords,
    batches: Batches,
    checkpoint: Checkpoint | None,
  ):
    """Makes the learner, as it was saved."""
    self._run = run
    self._link = link
    self._records = records
    self._batches = batches
    self._counts = Counts(
      {
        name: count
        for name, count in RunState.of(checkpoint).counts.items()
        if name.startswith("learner_")
      },
      others=lambda: link.orders.counts,
    )
    # Until there is a row: not every learner asks for a logger.
    self._log = self._sampled(metrics.NoLogger())
    self._learner = run.parts.learner(
      run.seeds.learner_key(),
      batches,
      self._make_log,
      batches.replay.client,
      Counter(self._counts, "learner"),
    )
    run_records.restore_learner(self._learner, checkpoint)
    self._num_save_failures = 0
    self.variables = PublishedVariables(
      self._learner, lambda: self._counts[LEARNER_STEPS]
    )

  def _make_log(self, *args: Any) -> metrics.SampledLogger:
    self._log = self._sampled(self._records.logger(*args))
    return self._log

  def _sampled(self, logger: Any) -> metrics.SampledLogger:
    return metrics.SampledLogger(
      logger, metrics.every_seconds(_LOG_SECONDS), self._link.note
    )

  def learn(self) -> None:
    """Learns until no more batches come, and saves now and then.

    Raises:
      NonFiniteError: if a loss is a NaN or an infinity.
    """
    timer = self._records.save_timer()
    shows = metrics.every_seconds(1.0)
    self._link.metrics["waiting_share"] = 0.0
    # `Batches` knows when there are enough for a batch.
    self._link.state = "waiting for transitions"
    while True:
      try:
        self._learner.step()
      except RunIsOverError:
        break
      self._link.state = "learning"
      self._link.metrics[LEARNER_STEPS] = self._counts[LEARNER_STEPS]
      if shows():
        self._link.metrics["waiting_share"] = self._batches.waiting_share()
        self._show_metrics()
      if timer.is_due():
        self.save()
        timer.restart()
    self._show_metrics()

  def _show_metrics(self) -> None:
    for name, value in metrics.select(self._log.last).items():
      self._link.metrics[name] = np.asarray(value).item()

  def save(self, patience: float = 0.0) -> str | None:
    """Saves the run, if it keeps any checkpoints.

    Args:
      patience: seconds to wait for a replay that is not there.

    Returns:
      Why no checkpoint could be written; None if all is well.

    Raises:
      NonFiniteError: if there is a NaN or an infinity in what is to be saved.
    """
    totals = self._counts.get_counts()
    state = RunState(
      int(totals.get(ACTOR_STEPS, 0)), self._records.last_evaluation(), totals
    )
    disk = self._records.disk
    if disk.attempt(
      "a checkpoint",
      lambda: self._records.save(
        self._learner,
        state,
        lambda folder, _: self._save_replay(folder, patience),
      ),
    ):
      return None
    self._num_save_failures += 1
    self._link.metrics["checkpoint_failures"] = self._num_save_failures
    return f"the last checkpoint could not be written: {disk.error}"

  def _save_replay(self, folder: pathlib.Path, patience: float) -> None:
    assert self._run.folder is not None
    staging = reverb_server.staging_folder(self._run.folder)
    end = time.monotonic() + patience
    while True:
      try:
        client = self._replay_client()
        break
      except ConnectionError:
        if time.monotonic() > end or self._link.over:
          raise
        time.sleep(_POLL_SECONDS)
    try:
      reverb_server.save(client, staging, folder)
    except (RuntimeError, reverb_errors.ReverbError) as error:
      raise OSError(f"Reverb: {error}") from error

  def _replay_client(self) -> reverb.Client:
    # A run that ends does not wait for batches any more, and so does not see
    # that replay has come back.
    with contextlib.suppress(ConnectionError):
      return self._batches.replay.client
    address = self._link.address_of("replay")
    if address is None:
      raise ConnectionError("There is no replay.")
    return reverb_server.connect(address, self._run.run_id)
