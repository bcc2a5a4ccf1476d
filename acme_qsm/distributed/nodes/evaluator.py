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
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.evaluation import Evaluator


def run_evaluator(run: Run, link: Link) -> None:
  """Evaluates whenever it is time, until the run is over."""
  # Old parameters would say nothing of the step that they are shown at.
  variables = RemoteVariables(run, link, wait=True)
  link.state = "waiting"
  with contextlib.suppress(RunIsOverError):
    evaluator = _make_evaluator(run, link, variables)

    def counts() -> dict[str, float]:
      return {**link.orders.counts, LEARNER_STEPS: variables.learner_steps}

    while not link.ending:
      if _is_due(run, link, evaluator.evaluated_at):
        link.state = "evaluating"
        if evaluator.evaluate(counts, lambda: link.ending):
          link.metrics = {
            key: evaluator.last[key]
            for key in ("episode_return", "episode_return_std")
          }
        link.state = "waiting"
      elif _learning_is_done(link):
        link.call("done", "evaluator")
        return
      else:
        time.sleep(POLL_SECONDS)


def _make_evaluator(
  run: Run, link: Link, variables: RemoteVariables
) -> Evaluator:
  def note(text: str) -> None:
    with contextlib.suppress(ConnectionError):
      link.call("note", text)

  orders = link.orders
  steps = int(orders.counts.get(ACTOR_STEPS, 0))
  return Evaluator(
    run.parts.evaluator(
      run.seeds.evaluator_key(steps, orders.incarnation), variables
    ),
    lambda steps: time_steps.Checked(
      Environment(run, link, run.seeds.evaluation_environment(steps)),
      run.environment_spec.observations,
      "Evaluation",
    ),
    run.schedule.num_episodes,
    run.records,
    run.experiment.title,
    note,
    run.records.last_evaluation(),
  )


def _is_due(run: Run, link: Link, evaluated_at: int) -> bool:
  steps = int(link.orders.counts.get(ACTOR_STEPS, 0))
  if steps >= run.schedule.total_steps and not _learning_is_done(link):
    return False  # The last one is of all that was learned.
  return run.schedule.is_due(steps, evaluated_at)


def _learning_is_done(link: Link) -> bool:
  orders = link.orders
  return orders.phase is Phase.LEARNING and orders.learner_done
