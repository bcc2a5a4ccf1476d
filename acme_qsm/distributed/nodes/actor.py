"""A process that acts and records what happens."""

import contextlib
import logging
import time

import dm_env

from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.coordination.link import RunIsOverError
from acme_qsm.distributed.coordination.messages import COMPILING
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.nodes import variables
from acme_qsm.distributed.nodes.connections import ReplayConnection
from acme_qsm.distributed.nodes.distributed_run import DistributedRun
from acme_qsm.distributed.nodes.environment import Environment
from acme_qsm.distributed.nodes.environment import EnvironmentFailedError
from acme_qsm.distributed.processes import supervision
from acme_qsm.experiments import environment_groups
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.records import metrics
from acme_qsm.replay import validation
from acme_qsm.types import InvalidValueError

# An environment that makes fewer steps than these before it fails has failed
# once more in a row; after so many of them in a row an actor gives up.
_STABLE_STEPS = 20
_MAX_ENVIRONMENT_FAILURES = 5
_LOG_SECONDS = 10.0


def work(run: DistributedRun, link: Link) -> None:
  """Acts until the run is over, or the environment has failed too often."""
  with contextlib.suppress(RunIsOverError):
    replay = link.reach(
      "replay",
      lambda: ReplayConnection(
        link.address_of, run.key, run.run_id, on_loss=link.lose_replay
      ),
    )
    # What is on its way to a replay that moves could block the actor for ever.
    link.depend_on_replay(replay.client.server_address)
    actor = _Actor(run, link, replay)
    try:
      actor.act()
    except RunIsOverError:
      actor.flush()


class _Actor:
  """Acts in one environment after the other and records what happens."""

  def __init__(self, run: DistributedRun, link: Link, replay: ReplayConnection):
    """Makes the actor."""
    self._run = run
    self._link = link
    self._index = int(link.name.partition("_")[2])
    self._incarnation = link.orders.incarnation
    self._num_environments = 0
    self._num_failures = self._num_failures_in_a_row = 0
    self._totals = {ACTOR_STEPS: 0.0, "actor_episodes": 0.0}
    self._variables = variables.RemoteVariables(
      lambda: variables.connect(run, link)
    )
    self._adder = run.parts.adder(replay.client)
    self._actor = run.parts.actor(
      run.seeds.actor_key(
        link.count(ACTOR_STEPS), self._index, self._incarnation
      ),
      self._variables,
      self._adder,
    )
    self._logger = metrics.SampledLogger(
      run.records().logger("actor", ACTOR_STEPS, self._index),
      metrics.every_seconds(_LOG_SECONDS),
    )

  def act(self) -> None:
    """Acts; raises RunIsOverError in the end."""
    self._actor.update(wait=True)
    while True:
      steps = self._totals[ACTOR_STEPS]
      try:
        with environment_groups.opened(self._make_environment) as environment:
          # The first time, which is when its policy first acts.
          self._link.state = COMPILING
          while True:
            self._run_episode(environment)
      except (EnvironmentFailedError, InvalidValueError) as error:
        self._count_failure(self._totals[ACTOR_STEPS] - steps, error)
        logging.exception("Making a new environment.")
        self.flush()

  def flush(self) -> None:
    """Forgets the episode, once what was recorded of it has arrived."""
    if self._adder is not None:
      self._adder.reset()

  def _make_environment(self) -> Environment:
    seed = self._run.seeds.environment(
      self._link.count(ACTOR_STEPS),
      self._index,
      self._incarnation,
      self._num_environments,
    )
    self._num_environments += 1
    self._link.state = "making its environment"
    return Environment(
      lambda: self._run.experiment.environment_factory(seed),
      self._link.deadline.within,
      self._run.hang_seconds,
    )

  def _count_failure(self, num_steps: float, error: Exception) -> None:
    """Counts an environment that failed after so many steps.

    Raises:
      GiveUpError: if too many did in a row.
    """
    self._num_failures += 1
    self._link.metrics["environment_failures"] = self._num_failures
    if num_steps >= _STABLE_STEPS:
      self._num_failures_in_a_row = 0
    self._num_failures_in_a_row += 1
    if self._num_failures_in_a_row >= _MAX_ENVIRONMENT_FAILURES:
      raise supervision.GiveUpError(
        f"the environment failed {self._num_failures_in_a_row} times in a row"
      ) from error

  def _run_episode(self, environment: Environment) -> None:
    start = time.monotonic()
    episode_return, length = 0.0, 0
    timestep = environment.reset()
    self._actor.observe_first(timestep)
    for observer in self._run.experiment.observers:
      observer.observe_first(environment.environment, timestep)
    while not timestep.last():
      if self._link.ending or self._link.orders.phase is not Phase.ACTING:
        raise RunIsOverError
      length += 1
      timestep = self._step(environment, timestep, length)
      episode_return += timestep.reward
    self._totals["actor_episodes"] += 1
    self._log_episode(episode_return, length, time.monotonic() - start)

  def _step(
    self, environment: Environment, timestep: dm_env.TimeStep, number: int
  ) -> dm_env.TimeStep:
    """Makes a step, of that number in its episode; the reward is a float."""
    action = self._actor.select_action(timestep.observation)
    self._link.state = "acting"
    timestep = environment.step(action)
    reward = validation.take_number("reward", timestep.reward, number)
    self._actor.observe(action, timestep)
    for observer in self._run.experiment.observers:
      observer.observe(environment.environment, timestep, action)
    self._totals[ACTOR_STEPS] += 1
    self._link.totals = dict(self._totals)
    # Counted first: it may find that the run is over.
    self._actor.update()
    return timestep._replace(reward=reward)

  def _log_episode(
    self, episode_return: float, length: int, seconds: float
  ) -> None:
    counts = self._link.orders.counts
    staleness = counts.get(LEARNER_STEPS, 0) - self._variables.learner_steps
    row = {
      "episode_return": episode_return,
      "episode_length": length,
      "steps_per_second": length / seconds,
      "staleness": max(0.0, staleness),
    }
    self._link.metrics.update(row)
    for observer in self._run.experiment.observers:
      row |= observer.get_metrics()
    self._logger.write({**counts, **row})
