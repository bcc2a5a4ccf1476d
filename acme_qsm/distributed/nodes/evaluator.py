"""The process that evaluates what was learned."""

import contextlib
import logging
import time

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

from acme_qsm.distributed.coordination.coordinator import ACTOR_STEPS
from acme_qsm.distributed.coordination.coordinator import Phase
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.connections import RemoteVariables
from acme_qsm.distributed.nodes.environment import Environment
from acme_qsm.distributed.nodes.run import EVALUATOR
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError
from acme_qsm.experiments import evaluation


def run_evaluator(run: Run, link: Link) -> None:
  """Evaluates whenever it is time, until the run is over."""
  # Its matplotlib takes long to load, and no other process needs it.
  from acme_qsm.experiments.records import plotting

  experiment = run.experiment
  builder, spec = experiment.builder, run.environment_spec
  logger = run.logger("evaluator", ACTOR_STEPS, 0)
  policy = builder.make_policy(
    experiment.network_factory(spec), spec, evaluation=True
  )
  link.state = "waiting"
  last = run.last_evaluation()
  try:
    actor = builder.make_actor(
      run.random_key(EVALUATOR, link.orders.incarnation),
      policy,
      spec,
      RemoteVariables(run, link),
    )
    while not link.ending:
      orders = link.orders
      steps = int(orders.counts.get(ACTOR_STEPS, 0))
      final = orders.phase is Phase.LEARNING and orders.learner_done
      if steps // run.eval_every <= max(last, 0) // run.eval_every and not (
        final and steps > last
      ):
        if final:
          break
        time.sleep(POLL_SECONDS)
        continue
      link.state = "evaluating"
      actor.update(wait=True)
      result = evaluation.evaluate(
        Environment(run, link, EVALUATOR, steps),
        actor,
        run.num_eval_episodes,
        lambda: link.ending,
      )
      if result is None:
        break
      last = steps
      logger.write({**orders.counts, ACTOR_STEPS: steps, **result})
      link.metrics = {
        key: result[key] for key in ("episode_return", "episode_return_std")
      }
      with contextlib.suppress(ConnectionError):
        link.call(
          "note",
          f"{steps:>9,} environment steps: {evaluation.describe(result)}",
        )
      if run.path is not None:
        try:
          plotting.plot_learning_curve(run.path, run.title)
        except OSError as error:
          logging.warning("The learning curve could not be drawn: %s", error)
      link.state = "waiting"
    if link.orders.phase is Phase.LEARNING and not link.evicted:
      link.call("done", "evaluator")
  except RunIsOverError:
    pass
