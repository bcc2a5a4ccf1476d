"""How many environment steps runs in one process make per second."""

import dataclasses
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import acme_qsm
from acme_qsm import DiffusionBuilder
from acme_qsm import environments
from acme_qsm import experiments
from acme_qsm.agents import acme as acme_agents
from acme_qsm.experiments.surroundings import compilation_cache
from acme_qsm.methods import METHODS
from launchers.benchmarks import plain_loop
from launchers.benchmarks import report
from launchers.benchmarks import subject
from launchers.benchmarks import timing

TASKS = {"cartpole": "cartpole:swingup", "cheetah": "cheetah:run"}

_NUM_ENVS = (1, 5, 16)


def measure_environments(effort: timing.Effort) -> Iterator[report.Row]:
  """Measures environment steps per second with several environments."""
  numbers = _NUM_ENVS[:2] if effort.quick else _NUM_ENVS
  steps = 500 if effort.quick else 3_000
  cases = {str(n): (measure_rates, "qsm", n, steps) for n in numbers}
  return _compare("environments", "environments", cases, effort)


def measure_sac(effort: timing.Effort) -> Iterator[report.Row]:
  """Measures environment steps per second beside Acme's SAC."""
  cases = {
    "qsm": (measure_rates, "qsm", 1, 3_000),
    "acme_sac": (measure_rates, "sac", 1, 3_000),
  }
  return _compare("sac", "agent", cases, effort)


def measure_official(effort: timing.Effort) -> Iterator[report.Row]:
  """Measures the loop at the sizes of the official one, beside that."""
  cases = {
    "plain": (plain_loop.measure, 500),
    "qsm": (measure_rates, "official", 1, 500),
  }
  return _compare("official", "loop", cases, effort)


def _compare(
  table: str,
  column: str,
  cases: Mapping[str, tuple[Any, ...]],
  effort: timing.Effort,
) -> Iterator[report.Row]:
  """Measures cases in turn, each in a process of its own.

  So that no agent pays for what another has loaded.
  """
  turns = [
    {name: timing.isolate(*case) for name, case in cases.items()}
    for _ in range(1 if effort.quick else 3)
  ]
  for name, row in timing.compare(turns).items():
    yield table, {column: name, **row}


def measure_rates(
  agent: str, num_envs: int, num_steps: int, warm_up_steps: int = 500
) -> dict[str, float]:
  """Runs an experiment on cheetah:run, first acting alone, then with updates.

  Args:
    agent: "qsm", with the configuration that all else is measured by, or
      "official", with the sizes of its official implementation, or Acme's
      "sac", which is by default of the same sizes as "qsm".
    num_envs: environments that are stepped together; there is one update for
      each step of all of them, which with 5 is SDAC's protocol.
    num_steps: environment steps, of all of them, that each rate is of.
    warm_up_steps: environment steps before each.

  Returns:
    Environment steps per second, of acting alone and with updates.
  """
  before_updates = warm_up_steps + num_steps
  total = 2 * before_updates + 1
  config: Any = acme_agents.AcmeSACConfig(min_replay_size=before_updates)
  make_builder: Any = acme_agents.AcmeAgentBuilder
  make_networks: Any = acme_agents.make_networks
  if agent != "sac":
    config = dataclasses.replace(
      METHODS["qsm"].preset(agent)
      if agent == "official"
      else subject.make_config(),
      min_replay_size=before_updates,
      updates_per_step=1.0 / num_envs,
    )
    make_builder, make_networks = DiffusionBuilder, acme_qsm.make_networks
  times: list[float] = []

  def make_environment(seed: int) -> Any:
    environment: Any = environments.make(TASKS["cheetah"], seed)
    step = environment.step

    def noted_step(action: Any) -> Any:
      times.append(time.perf_counter())
      return step(action)

    environment.step = noted_step
    return environment

  run(
    make_builder(config),
    lambda spec: make_networks(spec, config),
    make_environment,
    total,
    None,
    num_envs=num_envs,
  )

  def rate(begin: int, end: int) -> float:
    return (end - begin) / (times[end] - times[begin])

  return {
    "acting_steps_per_second": rate(warm_up_steps, before_updates - 1),
    "learning_steps_per_second": rate(
      before_updates + warm_up_steps, total - 1
    ),
  }


def run(
  builder: Any,
  make_networks: Callable[[Any], Any],
  make_environment: Callable[[int], Any],
  num_steps: int,
  folder: str | None,
  **how: Any,
) -> None:
  """Runs an experiment without evaluations, whose files go to a folder.

  Args:
    builder: makes the agent's parts.
    make_networks: environment_spec -> networks.
    make_environment: seed -> environment.
    num_steps: environment steps.
    folder: an empty one; None to write nothing.
    **how: further arguments of `run_experiment`.
  """
  compilation_cache.use()
  experiments.run_experiment(
    experiments.ExperimentConfig(
      builder=builder,
      network_factory=make_networks,
      environment_factory=make_environment,
      max_num_actor_steps=num_steps,
      seed=0,
      checkpointing=experiments.CheckpointingConfig(
        directory=folder, add_uid=False
      )
      if folder
      else None,
    ),
    eval_every=10**9,
    num_eval_episodes=0,
    **how,
  )
