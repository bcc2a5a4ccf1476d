"""Experiments in many processes."""

import dataclasses
import pathlib
import secrets

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import cloudpickle
from acme import specs

from acme_qsm.experiments import launchpad_engine
from acme_qsm.experiments import listening
from acme_qsm.experiments import workdir
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.nodes import Run
from acme_qsm.experiments.run_coordinator import CoordinatorConfig


def make_distributed_experiment(
  experiment: ExperimentConfig,
  num_actors: int,
  *,
  num_actors_per_node: int = 1,
  eval_every: int = 5_000,
  num_eval_episodes: int = 5,
  host: str = listening.LOOPBACK,
  name: str = "agent",
) -> launchpad_engine.Program:
  """Makes a Launchpad program that runs an experiment in many processes.

  Replay, a learner, actors, an evaluator and a coordinator, which counts and
  ends the run at `experiment.max_num_actor_steps`. Launch it with
  `launchpad.launch`, in threads or processes.

  Args:
    experiment: what to run.
    num_actors: actors, at least 1.
    num_actors_per_node: actors per node of the program.
    eval_every: environment steps between evaluations.
    num_eval_episodes: episodes of each evaluation; 0 for no evaluator.
    host: the IP address of this machine that servers listen on. Whoever can
      reach it can reach Reverb, which has no authentication.
    name: the program's name.

  Returns:
    The program.

  Raises:
    ExperimentError: if an argument, the environment or the work directory
      cannot be used.
  """
  for argument, value, least in (
    ("num_actors", num_actors, 1),
    ("num_actors_per_node", num_actors_per_node, 1),
    ("eval_every", eval_every, 1),
    ("num_eval_episodes", num_eval_episodes, 0),
  ):
    if value < least:
      raise ExperimentError(
        f"{argument} must be at least {least}, got {value}."
      )
  builder = experiment.builder
  path: pathlib.Path | None = None
  try:
    listening.parse_address(host)
    spec = experiment.environment_spec or specs.make_environment_spec(
      experiment.environment_factory(experiment.seed)
    )
    networks = experiment.network_factory(spec)
    builder.make_replay_tables(
      spec, builder.make_policy(networks, spec, evaluation=False)
    )
    description = workdir.describe_run(experiment, spec)
    if experiment.checkpointing is not None:
      # Claimed by the coordinator later; what is wrong with it is said now.
      claimed = workdir.open_workdir(experiment.checkpointing, description)
      path = claimed.path
      claimed.close()
  except ValueError as error:
    raise ExperimentError(str(error)) from error
  if experiment.evaluator_factories is not None:
    num_eval_episodes = 0
  key = secrets.token_bytes(32)
  checkpointing = experiment.checkpointing
  if checkpointing is not None and path is not None:
    # The folder that was chosen, for all processes.
    checkpointing = dataclasses.replace(
      checkpointing, directory=str(path), add_uid=False
    )
  experiment = dataclasses.replace(experiment, checkpointing=checkpointing)
  run = Run(
    experiment=experiment,
    environment_spec=spec,
    title=str(experiment.description.get("task", type(builder).__name__)),
    eval_every=eval_every,
    num_eval_episodes=num_eval_episodes,
    key=key,
    host=host,
    path=path,
  )
  config = CoordinatorConfig(
    num_actors=num_actors,
    max_actor_steps=experiment.max_num_actor_steps,
    evaluates=num_eval_episodes > 0,
    key=key,
    host=host,
    checkpointing=checkpointing,
    description=description,
  )
  return launchpad_engine.make_program(
    config,
    cloudpickle.dumps(run),
    num_actors_per_node=num_actors_per_node,
    log_folder=path / "logs" if path else None,
    name=name,
  )
