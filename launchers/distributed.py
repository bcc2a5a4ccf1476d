"""Trains Q-score matching on a dm_control task, in many processes.

The same command goes on from where an interrupted run was left, and so does
that of local.py. Launchpad's own flags (--lp_...) can be given too.
"""

import dataclasses
import os
import sys
import threading
import time
from typing import Any
from typing import Literal

import launchpad as lp
from absl import flags

from acme_qsm import experiments
from acme_qsm.experiments import command_line
from acme_qsm.experiments import launchpad_engine
from acme_qsm.experiments import listening
from acme_qsm.experiments.coordinator import ACTOR_STEPS
from acme_qsm.experiments.coordinator import Phase
from acme_qsm.experiments.interruption import Interruption
from acme_qsm.experiments.progress import Progress

_POLL_SECONDS = 0.5
# How long an interrupted run may take to save and end.
_END_SECONDS = 60.0
_EXIT_CODES = {Phase.FINISHED: 0, Phase.FAILED: 1}


@dataclasses.dataclass(frozen=True)
class Arguments(command_line.Arguments):
  """What can be said of a distributed run.

  Attributes:
    num_actors: processes that act.
    launch_type: local_mp for processes, local_mt for threads of one process.
    host: the IP address of this machine that servers listen on. Reverb has no
      authentication: whoever can reach the address can read, fill and empty
      replay.
  """

  num_actors: int = 2
  launch_type: Literal["local_mp", "local_mt"] = "local_mp"
  host: str = "127.0.0.1"


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
    program = experiments.make_distributed_experiment(
      command_line.make_experiment(arguments),
      arguments.num_actors,
      eval_every=arguments.eval_every,
      num_eval_episodes=arguments.num_eval_episodes,
      host=arguments.host,
    )
  except ValueError as error:
    return command_line.fail(error)
  if not listening.parse_address(arguments.host).is_loopback:
    print(
      f"Servers listen on {arguments.host}. Reverb has no authentication: "
      "whoever can reach that address can read, fill and empty replay; and "
      "nothing is encrypted."
    )
  flags.FLAGS([sys.argv[0], *launchpad_flags], known_only=False)
  return launch(program, arguments)


def launch(program: launchpad_engine.Program, arguments: Arguments) -> int:
  """Launches a program and shows how it does; returns the exit code."""
  os.environ[launchpad_engine.LAUNCHER_VARIABLE] = str(os.getpid())
  manager = lp.launch(
    program, launch_type=arguments.launch_type, terminal="current_terminal"
  )
  print(f"Launched in {arguments.directory}; logs of each process in logs/.")
  client = program.connect()
  phase, reason = Phase.ACTING, ""
  told = False
  with (
    Interruption() as interruption,
    Progress(arguments.num_steps, arguments.task) as progress,
  ):
    shown = 0
    heard_at = told_at = time.monotonic()
    patience = 180.0  # Until the coordinator has started.
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
        heard_at = time.monotonic()
        patience = _END_SECONDS
      except ConnectionError as error:
        if time.monotonic() - heard_at > patience:
          phase, reason = Phase.FAILED, f"the coordinator is gone: {error}"
        continue
      phase, reason = Phase(status["phase"]), status["reason"]
      for event in status["events"][shown:]:
        progress.note(event)
      shown = len(status["events"])
      progress.update(
        int(status["counts"].get(ACTOR_STEPS, 0)), **_fields(status)
      )
  if phase is Phase.FAILED:
    print(f"Stopped: {reason}.", file=sys.stderr)
  elif phase is Phase.INTERRUPTED:
    print("Interrupted; the same command goes on from here.", file=sys.stderr)
  _wait(manager)
  if phase is Phase.INTERRUPTED:
    try:
      interruption.raise_if_requested()
    except KeyboardInterrupt:
      return 130
    except SystemExit:
      pass
    return 143
  return _EXIT_CODES[phase]


def _fields(status: dict[str, Any]) -> dict[str, Any]:
  """What the display shows of a run's status."""
  nodes = status["nodes"]
  metrics = {name: node["metrics"] for name, node in nodes.items()}
  replay, learner = metrics.get("replay", {}), metrics.get("learner", {})
  staleness = [
    value["staleness"] for value in metrics.values() if "staleness" in value
  ]
  inserts = replay.get("inserts", 0)
  return {
    "phase": status["phase"],
    "learner steps": learner.get("learner_steps", 0),
    "learner waits": learner.get("waiting_share"),
    "replay size": replay.get("size", 0),
    "samples per insert": replay["samples"] / inserts if inserts else None,
    "staleness": max(staleness) if staleness else None,
    "evaluation": metrics.get("evaluator", {}).get("episode_return"),
    **{name: node["state"] for name, node in nodes.items()},
  }


def _wait(manager: Any) -> None:
  """Waits for the processes to end, and ends those that do not."""
  thread = threading.Thread(
    target=lambda: manager.wait(raise_error=False), daemon=True
  )
  thread.start()
  thread.join(_END_SECONDS)


if __name__ == "__main__":
  code = main()
  sys.stdout.flush()
  sys.stderr.flush()
  # What is left of the run ends with this process.
  os._exit(code)
