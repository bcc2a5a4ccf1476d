"""Experiments in many processes."""

import secrets
import typing

import cloudpickle

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.run_coordinator import CoordinatorConfig
from acme_qsm.distributed.nodes.distributed_run import DistributedRun
from acme_qsm.distributed.plan import Plan
from acme_qsm.experiments import run as run_lib
from acme_qsm.experiments.config import as_experiment_error
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.config import require_at_least
from acme_qsm.replay.listening import addresses

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.engines import launchpad_engine


def make_distributed_experiment(
  experiment: ExperimentConfig,
  num_actors: int,
  *,
  num_actors_per_node: int = 1,
  eval_every: int = 5_000,
  num_eval_episodes: int = 5,
  hang_seconds: float = 30.0,
  host: str = addresses.LOOPBACK,
  name: str = "agent",
) -> "launchpad_engine.Program":
  """Makes a Launchpad program that runs an experiment in many processes.

  Replay, a learner, actors, an evaluator and a coordinator, which counts and
  ends the run at `experiment.max_num_actor_steps`. Launch it with
  `launchpad.launch`, in threads or processes. Ctrl-C or SIGTERM there has the
  learner save a checkpoint before all processes end.

  Args:
    experiment: what to run.
    num_actors: actors, at least 1.
    num_actors_per_node: what Acme's has, at least 1. Here each actor is a
      process of its own, and one node watches over all processes.
    eval_every: environment steps between evaluations.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluator.
    hang_seconds: how long one call of an environment may take; a process whose
      environment takes longer is started again.
    host: the IP address of this machine that servers listen on. Whoever can
      reach it can reach Reverb, which has no authentication.
    name: the program's name.

  Returns:
    The program.

  Raises:
    ExperimentError: if an argument, the environment or the work directory
      cannot be used.
  """
  require_at_least(1, num_actors_per_node=num_actors_per_node)
  plan = plan_experiment(
    experiment,
    num_actors,
    eval_every=eval_every,
    num_eval_episodes=num_eval_episodes,
    hang_seconds=hang_seconds,
    host=host,
  )
  # Only here: Ray does without it.
  from acme_qsm.distributed.engines import launchpad_engine

  return launchpad_engine.make_program(plan, name)


def plan_experiment(
  experiment: ExperimentConfig,
  num_actors: int,
  *,
  eval_every: int = 5_000,
  num_eval_episodes: int = 5,
  hang_seconds: float = 30.0,
  host: str = addresses.LOOPBACK,
) -> Plan:
  """Plans a distributed run, for whatever engine.

  Args:
    experiment: what to run.
    num_actors: actors, at least 1.
    eval_every: environment steps between evaluations.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluator.
    hang_seconds: how long one call of an environment may take; a process whose
      environment takes longer is started again.
    host: the IP address that this machine's servers listen on.

  Returns:
    The plan.

  Raises:
    ExperimentError: if an argument, the environment or the work directory
      cannot be used.
  """
  require_at_least(1, num_actors=num_actors)
  if experiment.environment_group_factory is not None:
    raise ExperimentError(
      "environment_group_factory must be None: each actor has one environment."
    )
  with as_experiment_error():
    _require_own_address(host)
  prepared = run_lib.prepare(experiment, eval_every, num_eval_episodes)
  with as_experiment_error():
    prepared.parts.check_replay()
  run_id = secrets.token_hex(16)
  # Claimed by the coordinator later; what is wrong with it is said now.
  claimed = prepared.open_workdir()
  if claimed is not None:
    run_id = claimed.run_id
    claimed.close()
  key = secrets.token_bytes(32)
  run = DistributedRun(
    prepared.experiment,
    prepared.parts,
    prepared.schedule,
    key=key,
    host=host,
    run_id=run_id,
    hang_seconds=hang_seconds,
  )
  config = CoordinatorConfig(
    num_actors=num_actors,
    max_actor_steps=experiment.max_num_actor_steps,
    evaluates=prepared.schedule.num_episodes > 0,
    key=key,
    host=host,
    checkpointing=prepared.experiment.checkpointing,
    description=prepared.description,
  )
  return Plan(
    coordinator=config,
    run=cloudpickle.dumps(run),
    log_folder=prepared.folder / "logs" if prepared.folder else None,
  )


def _require_own_address(host: str) -> None:
  addresses.parse_address(host)
  try:
    rpc.free_port(host)
  except OSError as error:
    raise ExperimentError(
      f"Nothing can listen on {host}, which is no address of this machine: "
      f"{error}."
    ) from error
