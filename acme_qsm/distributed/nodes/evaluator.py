"""The process that evaluates what was learned."""

import contextlib
import time

from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.coordination.link import RunIsOverError
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.nodes import variables as variables_lib
from acme_qsm.distributed.nodes.distributed_run import DistributedRun
from acme_qsm.distributed.nodes.environment import Environment
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.evaluation import Evaluator

_POLL_SECONDS = 0.2


def work(run: DistributedRun, link: Link) -> None:
  """Evaluates whenever it is time, until the run is over."""
  variables = variables_lib.RemoteVariables(
    lambda: variables_lib.connect(run, link),
    # Old parameters would say nothing of the step that they are shown at.
    wait=True,
  )
  records = run.records()
  evaluator = Evaluator(
    run.parts.evaluator(
      run.seeds.evaluator_key(link.count(ACTOR_STEPS), link.orders.incarnation),
      variables,
    ),
    lambda steps: time_steps.Checked(
      Environment(
        lambda: run.experiment.environment_factory(
          run.seeds.evaluation_environment(steps)
        ),
        link.deadline.within,
        run.hang_seconds,
      ),
      run.environment_spec.observations,
      "Evaluation",
    ),
    run.schedule.num_episodes,
    records,
    run.experiment.title,
    link.note,
    records.last_evaluation(),
  )

  def counts() -> dict[str, float]:
    return {**link.orders.counts, LEARNER_STEPS: variables.learner_steps}

  def is_due() -> bool:
    steps = link.count(ACTOR_STEPS)
    if steps >= run.schedule.total_steps and not has_learned_all():
      return False
    return run.schedule.is_due(steps, evaluator.evaluated_at)

  def has_learned_all() -> bool:
    return link.orders.phase is Phase.LEARNING and link.orders.learner_done

  link.state = "waiting"
  with contextlib.suppress(RunIsOverError):
    while not link.ending:
      if is_due():
        link.state = "evaluating"
        if evaluator.evaluate(counts, lambda: link.ending):
          link.metrics = {
            key: evaluator.last[key]
            for key in ("episode_return", "episode_return_std")
          }
        link.state = "waiting"
      elif has_learned_all():
        link.call("done", "evaluator")
        return
      else:
        time.sleep(_POLL_SECONDS)
