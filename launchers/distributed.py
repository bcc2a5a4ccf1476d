"""Trains an agent on a dm_control task, in many processes.

The same command goes on from where an interrupted run was left, and so does
that of local.py. Launchpad's own flags (--lp_...) can be given too.
"""

import pathlib
import sys

if __name__ == "__main__":
  # The clone comes first, wherever this is started and whatever is installed.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
  from launchers import installation

  installation.check()

import dataclasses
import os
import signal
import time
import typing
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Literal

from absl import flags

from acme_qsm import needs
from acme_qsm.distributed.coordination import liveness
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.display import Display
from acme_qsm.experiments import no_learning
from acme_qsm.experiments.config import require_at_least
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.surroundings import interruption
from acme_qsm.experiments.surroundings import launcher
from acme_qsm.experiments.surroundings.progress import Progress
from acme_qsm.replay.listening import addresses
from launchers import command_line
from launchers import installation

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.engines.launchpad_engine import LaunchpadRun
  from acme_qsm.distributed.engines.ray_engine import RayRun
  from acme_qsm.distributed.plan import Plan

_POLL_SECONDS = 0.5
# How long an interrupted run may take to save and end.
_END_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Arguments):
  """The flags of a distributed run.

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


@launcher.settled()
def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the process's exit code."""
  given = sys.argv[1:] if argv is None else argv
  launchpad_flags = [flag for flag in given if flag.startswith("--lp_")]
  try:
    arguments = command_line.parse(
      Arguments,
      [flag for flag in given if flag not in launchpad_flags],
      __doc__,
    )
    require_at_least(1, num_actors=arguments.num_actors)
    if argv is None:
      installation.require("launchpad", "reverb", arguments.engine)
    experiment = command_line.make_experiment(arguments)
    # What takes long is not needed to help, or to refuse a flag.
    program = needs.load(
      "acme_qsm.distributed.program", "A run in many processes"
    )
    plan = program.plan_experiment(
      experiment,
      arguments.num_actors,
      eval_every=arguments.eval_every,
      num_eval_episodes=arguments.num_eval_episodes,
      host=arguments.host,
    )
  except (ValueError, ModuleNotFoundError) as error:
    return installation.fail(error, argv)
  flags.FLAGS([sys.argv[0], *launchpad_flags], known_only=False)

  def work(interrupted: interruption.Interruption) -> int:
    try:
      with interruption.deferred():
        run = start(plan, arguments)
    except ValueError as error:
      return installation.fail(error, argv)
    if not addresses.parse_address(run.host).is_loopback:
      print(
        f"Servers listen on {run.host} and its like. Reverb has no "
        "authentication: whoever can reach that address can read, fill and "
        "empty replay; and nothing is encrypted."
      )
    print(f"Launched in {arguments.directory}; logs of each process in logs/.")
    warning = no_learning.warn_of_no_learning(experiment)
    if warning is not None:
      print(warning)
    return watch(run, arguments, interrupted)

  return interruptibly(work)


def interruptibly(work: Callable[[interruption.Interruption], int]) -> int:
  """Does work that a signal ends soon, and a second one at once.

  Args:
    work: is told of the signal, and returns an exit code.

  Returns:
    That, or the exit code of Ctrl-C.
  """
  try:
    with interruption.Interruption() as interrupted:
      return work(interrupted)
  except KeyboardInterrupt:  # For the second time.
    print(
      "Stopped at once; the same command goes on from the last checkpoint.",
      file=sys.stderr,
    )
    return 128 + signal.SIGINT


def start(plan: "Plan", arguments: Arguments) -> "LaunchpadRun | RayRun":
  """Starts a run with the engine that the arguments name."""
  if arguments.engine == "launchpad":
    from acme_qsm.distributed.engines.launchpad_engine import LaunchpadRun

    return LaunchpadRun(plan, arguments.launch_type)
  from acme_qsm.distributed.engines.ray_engine import RayRun

  return RayRun(plan, arguments.ray_address)


def watch(
  run: "LaunchpadRun | RayRun",
  arguments: Arguments,
  interrupted: interruption.Interruption,
) -> int:
  """Shows how a run does until it is over; returns the exit code."""
  with Progress(arguments.num_steps, arguments.task) as progress:
    status = _follow(run, interrupted, progress)
    phase = Phase(status["phase"])
    if phase is Phase.FINISHED:
      counts = status["counts"]
      progress.note(
        f"Done: {int(counts[ACTOR_STEPS]):,} environment steps in "
        f"{arguments.directory}."
      )
      if not counts.get(LEARNER_STEPS):
        progress.note(
          "Nothing was learned: replay did not come to hold "
          "min_replay_size transitions."
        )
  if phase is Phase.FAILED:
    print(f"Stopped: {status['reason']}.", file=sys.stderr)
  elif phase is Phase.INTERRUPTED:
    print("Interrupted; the same command goes on from here.", file=sys.stderr)
  run.wait()
  return _exit_code(phase, interrupted.received)


def _follow(
  run: "LaunchpadRun | RayRun",
  interrupted: interruption.Interruption,
  progress: Progress,
) -> Mapping[str, Any]:
  """Shows how a run does until it is over; returns its last status."""
  client, display = run.client, Display()
  lifeline = liveness.Lifeline(gone_seconds=_END_SECONDS, cut_seconds=180.0)
  told_at: float | None = None
  num_shown = 0
  while True:
    time.sleep(_POLL_SECONDS)
    try:
      if interrupted.received is not None and told_at is None:
        client.call("interrupt", interrupted.received.name)
        told_at = time.monotonic()
        progress.note("Stopping: the learner saves a checkpoint.")
      if told_at is not None and time.monotonic() - told_at > _END_SECONDS:
        client.call("fail", "interrupted, but the learner did not save")
      status = client.call("status")
      lifeline.answered()
    except ConnectionError as error:
      if lifeline.is_gone(error):
        return {
          "phase": Phase.FAILED,
          "reason": f"the coordinator is gone: {error}",
        }
      continue
    run.tend(status)
    for event in status["events"][num_shown:]:
      progress.note(event)
    num_shown = len(status["events"])
    actor_steps = int(status["counts"].get(ACTOR_STEPS, 0))
    progress.update(actor_steps, **display.fields(status))
    if Phase(status["phase"]).over:
      return status


def _exit_code(phase: Phase, received: signal.Signals | None) -> int:
  if phase is not Phase.INTERRUPTED:
    return 0 if phase is Phase.FINISHED else 1
  return 128 + (received or signal.SIGTERM)


if __name__ == "__main__":
  # What is left of the run ends with this process; all is printed.
  os._exit(main())
