"""Trains Q-score matching on a dm_control task, in many processes.

The same command goes on from where an interrupted run was left, and so does
that of local.py. Launchpad's own flags (--lp_...) can be given too.
"""

import collections
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Literal

from absl import flags

from acme_qsm.distributed import program as distributed
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.messages import ACTOR_STEPS
from acme_qsm.distributed.coordination.messages import ENDED_STATES
from acme_qsm.distributed.coordination.messages import NOT_STARTED
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.engines.launchpad_engine import LaunchpadRun
from acme_qsm.distributed.engines.ray_engine import RayRun
from acme_qsm.distributed.plan import Plan
from acme_qsm.experiments import command_line
from acme_qsm.experiments.interruption import Interruption
from acme_qsm.experiments.progress import Progress
from acme_qsm.replay.listening import bind as listening

_POLL_SECONDS = 0.5
_RATE_SECONDS = 30.0
_SILENT_SECONDS = 5.0
# How long an interrupted run may take to save and end.
_END_SECONDS = 60.0
_EXIT_CODES = {Phase.FINISHED: 0, Phase.FAILED: 1}


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Arguments):
  """What can be said of a distributed run.

  Attributes:
    num_actors: processes that act.
    engine: launchpad for this machine; ray for this one or a cluster.
    launch_type: launchpad's: local_mp for processes, local_mt for threads of
      one process.
    host: the IP address of this machine that launchpad's processes listen on.
      Reverb has no authentication: whoever can reach the address can read, fill
      and empty replay.
    ray_address: a Ray cluster's address, auto for the one that this machine
      belongs to. None starts Ray for this run, on this machine alone.
  """

  num_actors: int = 2
  engine: Literal["launchpad", "ray"] = "launchpad"
  launch_type: Literal["local_mp", "local_mt"] = "local_mp"
  host: str = "127.0.0.1"
  ray_address: str | None = None


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  argv = sys.argv[1:] if argv is None else argv
  launchpad_flags = [flag for flag in argv if flag.startswith("--lp_")]
  try:
    arguments = command_line.parse(
      Arguments,
      [flag for flag in argv if flag not in launchpad_flags],
      __doc__,
    )
    plan = distributed.plan_experiment(
      command_line.make_experiment(arguments),
      arguments.num_actors,
      eval_every=arguments.eval_every,
      num_eval_episodes=arguments.num_eval_episodes,
      host=arguments.host,
    )
  except ValueError as error:
    return command_line.fail(error)
  flags.FLAGS([sys.argv[0], *launchpad_flags], known_only=False)
  try:
    run = start(plan, arguments)
  except ValueError as error:
    return command_line.fail(error)
  if not listening.parse_address(run.host).is_loopback:
    print(
      f"Servers listen on {run.host} and its like. Reverb has no "
      "authentication: whoever can reach that address can read, fill and empty "
      "replay; and nothing is encrypted."
    )
  print(f"Launched in {arguments.directory}; logs of each process in logs/.")
  return watch(run, arguments)


def start(plan: Plan, arguments: Arguments) -> LaunchpadRun | RayRun:
  """Starts a run with the engine that the arguments name."""
  if arguments.engine == "launchpad":
    return LaunchpadRun(plan, arguments.launch_type)
  return RayRun(plan, arguments.ray_address)


def watch(run: LaunchpadRun | RayRun, arguments: Arguments) -> int:
  """Shows how a run does until it is over; returns the exit code."""
  try:
    return _watch(run, arguments)
  except KeyboardInterrupt:  # For the second time.
    print(
      "Stopped at once; the same command goes on from the last checkpoint.",
      file=sys.stderr,
    )
    return 128 + signal.SIGINT


def _watch(run: LaunchpadRun | RayRun, arguments: Arguments) -> int:
  client = run.client
  phase, reason = Phase.ACTING, ""
  told = False
  display = Display()
  with (
    Interruption() as interruption,
    Progress(arguments.num_steps, arguments.task) as progress,
  ):
    shown = 0
    told_at = time.monotonic()
    lifeline = rpc.Lifeline(gone_seconds=_END_SECONDS, cut_seconds=180.0)
    while not phase.over:
      time.sleep(_POLL_SECONDS)
      try:
        if interruption.requested() and not told:
          client.call("interrupt", "Ctrl-C or SIGTERM")
          told, told_at = True, time.monotonic()
          progress.note("Stopping: the learner saves a checkpoint.")
        if told and time.monotonic() - told_at > _END_SECONDS:
          client.call("fail", "interrupted, but the learner did not save")
        status = client.call("status")
        lifeline.answered()
      except ConnectionError as error:
        if lifeline.is_gone(error):
          phase, reason = Phase.FAILED, f"the coordinator is gone: {error}"
        continue
      run.tend(status)
      phase, reason = Phase(status["phase"]), status["reason"]
      for event in status["events"][shown:]:
        progress.note(event)
      shown = len(status["events"])
      progress.update(
        int(status["counts"].get(ACTOR_STEPS, 0)), **display.fields(status)
      )
    if phase is Phase.FINISHED:
      progress.note(
        f"Done: {arguments.num_steps:,} environment steps in "
        f"{arguments.directory}."
      )
  if phase is Phase.FAILED:
    print(f"Stopped: {reason}.", file=sys.stderr)
  elif phase is Phase.INTERRUPTED:
    print("Interrupted; the same command goes on from here.", file=sys.stderr)
  run.wait()
  if phase is Phase.INTERRUPTED:
    try:
      interruption.raise_if_requested()
    except KeyboardInterrupt:
      return 128 + signal.SIGINT
    except SystemExit:
      pass
    return 128 + signal.SIGTERM
  return _EXIT_CODES[phase]


class Display:
  """Turns a run's status into what is shown of it."""

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    """Initialises the display.

    Args:
      clock: tells the time in seconds.
    """
    self._clock = clock
    # (time, learner steps) of the last while.
    self._learner: collections.deque[tuple[float, float]] = collections.deque()

  def fields(self, status: Mapping[str, Any]) -> dict[str, Any]:
    """What to show of a run beside its environment steps.

    Args:
      status: the coordinator's.

    Returns:
      Numbers and texts by name; None for what is not known yet.
    """
    nodes = status["nodes"]
    metrics = {name: node["metrics"] for name, node in nodes.items()}
    replay, learner = metrics.get("replay", {}), metrics.get("learner", {})
    staleness = [
      value["staleness"] for value in metrics.values() if "staleness" in value
    ]
    inserts = replay.get("inserts", 0)
    steps = learner.get("learner_steps", 0)
    actors: dict[str, int] = collections.Counter()
    others = {}
    for name, node in nodes.items():
      state = node["state"]
      silent = node["silent_seconds"] > _SILENT_SECONDS
      if silent and state not in ENDED_STATES:
        state = f"silent for {node['silent_seconds']:.0f} s"
      if name.startswith("actor_"):
        actors[state] += 1
      else:
        others[name] = state
    phase = status["phase"]
    if "learner" in others and others["learner"] in (NOT_STARTED, "starting"):
      phase = "starting"
    return {
      "phase": phase,
      "learner steps": steps,
      "learner steps/s": self._rate(steps),
      "learner waits": learner.get("waiting_share"),
      "replay size": replay.get("size", 0),
      "samples per insert": replay["samples"] / inserts if inserts else None,
      "staleness": max(staleness) if staleness else None,
      "evaluation": metrics.get("evaluator", {}).get("episode_return"),
      **others,
      "actors": ", ".join(
        f"{n} {state}" for state, n in sorted(actors.items())
      ),
    }

  def _rate(self, steps: float) -> float | None:
    """Learner steps per second over the last while."""
    now = self._clock()
    if self._learner and steps < self._learner[-1][1]:
      self._learner.clear()  # It went back to a checkpoint.
    self._learner.append((now, steps))
    while self._learner[0][0] < now - _RATE_SECONDS:
      self._learner.popleft()
    since, before = self._learner[0]
    return (steps - before) / (now - since) if now > since else None


if __name__ == "__main__":
  code = main()
  sys.stdout.flush()
  sys.stderr.flush()
  # What is left of the run ends with this process.
  os._exit(code)
