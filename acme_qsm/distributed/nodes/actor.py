"""A process that acts and records what happens."""

import contextlib
import logging
import time

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

from acme.utils import loggers as acme_loggers

from acme_qsm.distributed.coordination.coordinator import ACTOR_STEPS
from acme_qsm.distributed.coordination.coordinator import LEARNER_STEPS
from acme_qsm.distributed.coordination.coordinator import Phase
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.connections import RemoteVariables
from acme_qsm.distributed.nodes.connections import ReplayConnection
from acme_qsm.distributed.nodes.environment import Environment
from acme_qsm.distributed.nodes.environment import EnvironmentFailedError
from acme_qsm.distributed.nodes.run import ACTOR
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError
from acme_qsm.distributed.processes import supervision
from acme_qsm.types import NonFiniteError

# An environment that makes fewer steps than these before it fails has failed
# once more in a row; after so many of them in a row an actor gives up.
_STABLE_STEPS = 20
_MAX_ENVIRONMENT_FAILURES = 5
_LOG_SECONDS = 10.0


class Actor:
  """Acts in an environment and records what happens."""

  def __init__(self, run: Run, link: Link, index: int):
    self._run = run
    self._link = link
    self._index = index
    self._incarnation = link.orders.incarnation
    self._environments_made = 0
    self._totals = {ACTOR_STEPS: 0.0, "actor_episodes": 0.0}

  def _purpose(self, *purpose: int) -> tuple[int, ...]:
    """The seeds' purpose: see `Run.seed`."""
    # What came before in the run counts too: a run that goes on, or a process
    # that was started again, must not see the same random numbers again.
    steps = int(self._link.orders.counts.get(ACTOR_STEPS, 0))
    return ACTOR, self._index, self._incarnation, steps, *purpose

  def run(self) -> None:
    """Acts until the run is over, or the environment has failed too often."""
    run, link = self._run, self._link
    experiment = run.experiment
    builder, spec = experiment.builder, run.environment_spec
    try:
      client = ReplayConnection(run, link, on_loss=link.lose_replay).client
    except RunIsOverError:
      return
    # What is on its way to a replay that moves could block the actor for ever.
    link.depend_on_replay(client.server_address)
    policy = builder.make_policy(
      experiment.network_factory(spec), spec, evaluation=False
    )
    variables = self._variables = RemoteVariables(run, link)
    adder = builder.make_adder(client, spec, policy)
    self._actor = builder.make_actor(
      run.random_key(*self._purpose(0)), policy, spec, variables, adder
    )
    self._logger = acme_loggers.TimeFilter(
      run.logger("actor", ACTOR_STEPS, self._index), _LOG_SECONDS
    )
    failures = 0
    failed_at = 0.0
    environment = None
    try:
      self._actor.update(wait=True)
      link.state = "acting"
      while True:
        try:
          if environment is None:
            environment = self._make_environment()
          self._run_episode(environment)
        except (EnvironmentFailedError, NonFiniteError) as error:
          steps = self._totals[ACTOR_STEPS]
          failures = 1 + (failures if steps - failed_at < _STABLE_STEPS else 0)
          failed_at = steps
          if failures >= _MAX_ENVIRONMENT_FAILURES:
            raise supervision.GiveUpError(
              f"the environment failed {failures} times in a row"
            ) from error
          logging.exception("Making a new environment.")
          link.metrics["environment_failures"] = (
            link.metrics.get("environment_failures", 0) + 1
          )
          environment = None
          adder.reset()
    except RunIsOverError:
      adder.reset()

  def _make_environment(self) -> Environment:
    self._environments_made += 1
    return Environment(
      self._run, self._link, *self._purpose(1, self._environments_made)
    )

  def _wait_for_allowance(self) -> None:
    """Waits until another step may be made; raises if none ever may."""
    link = self._link
    while self._totals[ACTOR_STEPS] >= link.step_limit:
      # Who is cut off waits, or is ended by its link.
      with contextlib.suppress(ConnectionError):
        link.report()
      if link.ending or link.orders.phase is not Phase.ACTING:
        raise RunIsOverError
      if self._totals[ACTOR_STEPS] >= link.step_limit:
        time.sleep(POLL_SECONDS)

  def _run_episode(self, environment: Environment) -> None:
    link, actor = self._link, self._actor
    start = time.monotonic()
    episode_return, length = 0.0, 0
    timestep = environment.reset()
    actor.observe_first(timestep)
    observers = self._run.experiment.observers
    for observer in observers:
      observer.observe_first(environment.environment, timestep)
    while not timestep.last():
      if link.ending:
        raise RunIsOverError
      self._wait_for_allowance()
      action = actor.select_action(timestep.observation)
      timestep = environment.step(action)
      actor.observe(action, timestep)
      for observer in observers:
        observer.observe(environment.environment, timestep, action)
      actor.update()
      self._totals[ACTOR_STEPS] += 1
      link.totals = dict(self._totals)
      episode_return += float(timestep.reward)
      length += 1
    self._totals["actor_episodes"] += 1
    counts = link.orders.counts
    staleness = max(
      0.0, counts.get(LEARNER_STEPS, 0) - self._variables.learner_steps
    )
    metrics = {
      "episode_return": episode_return,
      "episode_length": length,
      "steps_per_second": length / (time.monotonic() - start),
      "staleness": staleness,
    }
    link.metrics.update(metrics)
    for observer in observers:
      metrics |= observer.get_metrics()
    self._logger.write({**counts, **metrics})
