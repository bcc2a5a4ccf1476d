"""The process that evaluates what was learned."""

import contextlib
import time

from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.nodes.environment import Environment
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.distributed.nodes.run import RunIsOverError
from acme_qsm.distributed.nodes.variables import RemoteVariables
from acme_qsm.experiments import evaluation
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.one_seed import OneActor


def run_evaluator(run: Run, link: Link) -> None:
  """Evaluates whenever it is time, until the run is over."""
  # Old parameters would say nothing of the step that they are shown at.
  variables = RemoteVariables(run, link, wait=True)
  link.state = "waiting"
  with contextlib.suppress(RunIsOverError):
    actor, evaluations = _make_evaluations(run, link, variables)

    def get_counts(seed: int) -> dict[str, float]:
      del seed
      return {**link.orders.counts, LEARNER_STEPS: variables.learner_steps}

    while not link.ending:
      if _is_due(run, link, evaluations.evaluated_at):
        link.state = "evaluating"
        results = evaluation.evaluate(
          actor,
          {0: evaluations},
          run.schedule.num_episodes,
          get_counts,
          lambda: link.ending,
        )
        if results is not None:
          _show(run, link, evaluations.evaluated_at, results[0])
        link.state = "waiting"
      elif _learning_is_done(link):
        link.call("done", "evaluator")
        return
      else:
        time.sleep(POLL_SECONDS)


def _make_evaluations(
  run: Run, link: Link, variables: RemoteVariables
) -> tuple[OneActor, evaluation.Evaluations]:
  orders = link.orders
  steps = int(orders.counts.get(ACTOR_STEPS, 0))
  key = run.seeds.evaluator_key(steps, orders.incarnation)
  return OneActor(run.parts.evaluator(key, variables)), evaluation.Evaluations(
    lambda steps: time_steps.Checked(
      Environment(run, link, run.seeds.evaluation_environment(steps)),
      run.environment_spec.observations,
      "Evaluation",
    ),
    run.records,
    run.records.last_evaluation(),
  )


def _show(run: Run, link: Link, steps: int, result: dict[str, float]) -> None:
  """Says, shows and draws what an evaluation gave."""
  with contextlib.suppress(ConnectionError):
    said = evaluation.describe(result)
    link.call("note", f"{steps:>9,} environment steps: {said}")
  run.records.draw_curve(run.experiment.title)
  link.metrics = {
    key: result[key] for key in ("episode_return", "episode_return_std")
  }


def _is_due(run: Run, link: Link, evaluated_at: int) -> bool:
  steps = int(link.orders.counts.get(ACTOR_STEPS, 0))
  if steps >= run.schedule.total_steps and not _learning_is_done(link):
    return False  # The last one is of all that was learned.
  return run.schedule.is_due(steps, evaluated_at)


def _learning_is_done(link: Link) -> bool:
  orders = link.orders
  return orders.phase is Phase.LEARNING and orders.learner_done
