"""How many environment steps a run makes per second, by agent and environments.

  python -m launchers.benchmarks.rates <agent> <environments> <steps>

measures an agent of `AGENTS` on cheetah:run, first while it acts alone and then
with updates, one for each step of all environments together; it prints what it
has found as JSON, in its last line. A process of its own, so that no agent pays
for what another has loaded.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from acme_qsm import DiffusionBuilder
from acme_qsm import environments
from acme_qsm import experiments
from acme_qsm import make_networks
from acme_qsm.agents import acme as acme_agents
from acme_qsm.experiments.surroundings import compilation_cache
from acme_qsm.methods import METHODS
from launchers.benchmarks import learner as learner_benchmark

_TASK = "cheetah:run"
# Until then things are compiled, allocated and looked up for the first time.
_WARM_UP_STEPS = 500


def _make_qsm(num_envs: int, min_replay_size: int) -> dict[str, Any]:
  """Parts of an experiment with the configuration that all else is measured by.

  One update for each step of all environments: one per 5 environment steps
  with 5 of them is SDAC's protocol.
  """
  return _make_parts(learner_benchmark.make_config(), num_envs, min_replay_size)


def _make_official(num_envs: int, min_replay_size: int) -> dict[str, Any]:
  """The same at the sizes of the official implementation."""
  config = METHODS["qsm"].preset("official")
  return _make_parts(config, num_envs, min_replay_size)


def _make_parts(
  config: Any, num_envs: int, min_replay_size: int
) -> dict[str, Any]:
  """Parts of an experiment with a configuration of ours."""
  config = dataclasses.replace(
    config, min_replay_size=min_replay_size, updates_per_step=1.0 / num_envs
  )
  return {
    "builder": DiffusionBuilder(config),
    "network_factory": lambda spec: make_networks(spec, config),
  }


def _make_sac(num_envs: int, min_replay_size: int) -> dict[str, Any]:
  """Parts of an experiment with Acme's SAC as it is by default.

  That is batches of 256, widths of 256 and an update per environment step, as
  for QSM.
  """
  del num_envs  # It has one.
  config = acme_agents.AcmeSACConfig(min_replay_size=min_replay_size)
  return {
    "builder": acme_agents.AcmeAgentBuilder(config),
    "network_factory": lambda spec: acme_agents.make_networks(spec, config),
  }


AGENTS: dict[str, Callable[[int, int], dict[str, Any]]] = {
  "qsm": _make_qsm,
  "official": _make_official,
  "sac": _make_sac,
}
"""(environments, least replay size) -> the parts of an experiment."""


class Steps:
  """Counts environment steps.

  Attributes:
    times: when each was counted, in seconds.
  """

  def __init__(self):
    self.times: list[float] = []

  def rate(self, begin: int, end: int) -> float:
    """Steps per second between two of them."""
    return (end - begin) / (self.times[end] - self.times[begin])


class _Counted:
  """An environment whose steps are counted."""

  def __init__(self, environment: Any, steps: Steps):
    self._environment = environment
    self._steps = steps

  def __getattr__(self, name: str) -> Any:
    return getattr(self._environment, name)

  def step(self, action: Any) -> Any:
    """Makes a step."""
    self._steps.times.append(time.perf_counter())
    return self._environment.step(action)


def measure(agent: str, num_envs: int, num_steps: int) -> dict[str, float]:
  """Runs an experiment.

  Args:
    agent: of `AGENTS`.
    num_envs: environments that are stepped together.
    num_steps: environment steps, of all of them, that each rate is of.

  Returns:
    Environment steps per second, of acting alone and with updates.
  """
  steps = Steps()
  before_updates = _WARM_UP_STEPS + num_steps
  total = 2 * before_updates + 1
  with contextlib.redirect_stdout(sys.stderr):
    experiments.run_experiment(
      experiments.ExperimentConfig(
        **AGENTS[agent](num_envs, before_updates),
        environment_factory=lambda seed: _Counted(  # pyright: ignore[reportArgumentType]
          environments.make(_TASK, seed), steps
        ),
        max_num_actor_steps=total,
        seed=0,
        checkpointing=None,
      ),
      eval_every=10**9,
      num_eval_episodes=0,
      num_envs=num_envs,
    )
  return {
    "acting_steps_per_second": steps.rate(_WARM_UP_STEPS, before_updates - 1),
    "learning_steps_per_second": steps.rate(
      before_updates + _WARM_UP_STEPS, total - 1
    ),
  }


if __name__ == "__main__":
  compilation_cache.use()
  print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
