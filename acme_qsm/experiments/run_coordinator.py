"""The program of a distributed run's coordinator."""

import contextlib
import dataclasses
import json
import pathlib
import time
from typing import Any

from acme_qsm.experiments import checkpointing
from acme_qsm.experiments import loggers
from acme_qsm.experiments import rpc
from acme_qsm.experiments import workdir
from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.coordinator import ACTOR_STEPS
from acme_qsm.experiments.coordinator import Coordinator
from acme_qsm.experiments.coordinator import Phase

STATUS_FILE = "run_status.json"
# What the other processes may call.
_FUNCTIONS = (
  *("announce", "find", "report", "done", "interrupt", "fail"),
  *("lost", "status"),
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
  description: dict[str, Any]


def run_coordinator(config: CoordinatorConfig, port: int) -> Phase:
  """Coordinates a run until it is over.

  Claims the work directory, cuts its logs back to the checkpoint that the run
  goes on from, and keeps `run_status.json` there up to date.

  Args:
    config: what to coordinate.
    port: where to listen.

  Returns:
    How the run ended.

  Raises:
    WorkdirError: if the work directory cannot hold this run.
    CheckpointError: if none of its checkpoints can be read.
    OSError: if the port is taken.
  """
  with contextlib.ExitStack() as stack:
    path: pathlib.Path | None = None
    counts: dict[str, float] = {}
    if config.checkpointing is not None:
      claimed = workdir.open_workdir(config.checkpointing, config.description)
      stack.callback(claimed.close)
      path = claimed.path
      checkpoint = checkpointing.Checkpointer(path / "checkpoints").latest()
      if checkpoint is not None:
        counts = {
          name: count
          for name, count in checkpoint.metadata["counter"]["counts"].items()
          if name.startswith("actor_")
        }
      loggers.rewind(path, int(counts[ACTOR_STEPS]) if checkpoint else -1)
    coordinator = Coordinator(
      config.num_actors,
      config.max_actor_steps,
      counts,
      evaluates=config.evaluates,
    )
    server = rpc.Server(
      {name: getattr(coordinator, name) for name in _FUNCTIONS},
      config.key,
      config.host,
      port,
    )
    stack.callback(server.stop)
    over_since: float | None = None
    while True:
      coordinator.notice_silence()
      status = coordinator.status()
      if path is not None:
        with contextlib.suppress(OSError):  # A full disk ends no run.
          checkpointing.write_atomically(
            path / STATUS_FILE, (json.dumps(status, indent=2) + "\n").encode()
          )
      phase = Phase(status["phase"])
      if phase.over:
        # Until the others have heard of it.
        over_since = over_since or time.monotonic()
        over_for = time.monotonic() - over_since
        states = {node["state"] for node in status["nodes"].values()}
        heard = states <= {"done", "given up"} and over_for > _LEAST_END_SECONDS
        if heard or over_for > _END_SECONDS:
          return phase
      time.sleep(_STATUS_SECONDS)
