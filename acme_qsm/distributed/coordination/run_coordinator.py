"""The program of a distributed run's coordinator."""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.coordination.messages import ENDED_STATES
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records import disk
from acme_qsm.experiments.records import workdir
from acme_qsm.experiments.records.run_records import RunRecords
from acme_qsm.experiments.records.run_state import RunState

STATUS_FILE = "run_status.json"
# What the other processes may call.
_FUNCTIONS = (
  *("announce", "report", "done", "lost"),
  *("interrupt", "fail", "note", "status"),
)
_STATUS_SECONDS = 0.5
# How long the others have at least, and at most, to hear of the end.
_LEAST_END_SECONDS = 3.0
_END_SECONDS = 15.0


@dataclasses.dataclass(frozen=True)
class CoordinatorConfig:
  """What a run's coordinator is told.

  Attributes:
    num_actors: actors that the run starts with.
    max_actor_steps: environment steps that the run is to make.
    evaluates: whether there is an evaluator to wait for.
    key: what the run's processes know each other by.
    host: the IP address to listen on.
    checkpointing: the work directory's, None to keep no files.
    description: what identifies the run.
  """

  num_actors: int
  max_actor_steps: int
  evaluates: bool
  key: bytes
  host: str
  checkpointing: CheckpointingConfig | None
  description: workdir.Description


def run_coordinator(
  config: CoordinatorConfig,
  port: int = 0,
  on_start: Callable[[str], Any] = lambda address: None,
) -> Phase:
  """Coordinates a run until it is over.

  Claims the work directory, cuts its logs back to the checkpoint that the run
  goes on from, and keeps `run_status.json` there up to date. If it cannot, the
  run has failed, and the others hear why.

  Args:
    config: what to coordinate.
    port: where to listen; 0 for a free port.
    on_start: called with its address, once it listens there.

  Returns:
    How the run ended.

  Raises:
    OSError: if the port is taken.
  """
  with contextlib.ExitStack() as stack:
    path: pathlib.Path | None = None
    state = RunState()
    failure: str | None = None
    try:
      if config.checkpointing is not None:
        claimed = workdir.open_workdir(config.checkpointing, config.description)
        stack.callback(claimed.close)
        path = claimed.path
        state = _restore(RunRecords(path, config.checkpointing))
    except (OSError, ValueError, checkpointing.CheckpointError) as error:
      failure = f"{type(error).__name__}: {error}"
    coordinator = Coordinator(
      config.num_actors,
      config.max_actor_steps,
      {
        name: count
        for name, count in state.counts.items()
        if name.startswith("actor_")
      },
      evaluates=config.evaluates,
    )
    if failure is not None:
      coordinator.fail(failure)
    elif state.actor_steps:
      coordinator.note(
        f"Goes on from a checkpoint: {state.actor_steps:,} environment steps, "
        f"{int(state.counts.get(LEARNER_STEPS, 0)):,} learner steps."
      )
    server = rpc.Server(
      {name: getattr(coordinator, name) for name in _FUNCTIONS},
      config.key,
      config.host,
      port,
    )
    stack.callback(server.stop)
    on_start(server.address)
    return _wait_for_the_end(coordinator, path)


def _restore(records: RunRecords) -> RunState:
  """Sets the work directory back to its last checkpoint, if it has any."""
  checkpoint = records.latest_checkpoint()
  records.rewind(checkpoint)
  return RunState.of(checkpoint)


def _wait_for_the_end(
  coordinator: Coordinator, path: pathlib.Path | None
) -> Phase:
  over_since: float | None = None
  while True:
    coordinator.notice_silence()
    status = coordinator.status()
    phase = Phase(status["phase"])
    if path is not None:
      # Whatever a process reports: it ends no others.
      text = json.dumps(status, indent=2, default=str) + "\n"
      with contextlib.suppress(OSError):  # A full disk ends no run.
        disk.write_atomically(
          path / STATUS_FILE, text.encode(), durable=phase.over
        )
    if phase.over:
      # Until the others have heard of it.
      over_since = over_since or time.monotonic()
      over_for = time.monotonic() - over_since
      states = {node["state"] for node in status["nodes"].values()}
      all_ended = states <= ENDED_STATES
      if over_for > (_LEAST_END_SECONDS if all_ended else _END_SECONDS):
        return phase
    time.sleep(_STATUS_SECONDS)
