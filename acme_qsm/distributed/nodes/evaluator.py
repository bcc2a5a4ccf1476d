"""The process that evaluates what was learned."""

import contextlib
import time

from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.coordination.link import RunIsOverError
from acme_qsm.distributed.coordination.messages import Phase
from acme_qsm.distributed.nodes import variables as variables_lib
from acme_qsm.distributed.nodes.distributed_run import DistributedRun
from acme_qsm.distributed.nodes.environment import Environment
from acme_qsm.experiments import evaluation
from acme_qsm.experiments import time_steps
from acme_qsm.experiments.counts import ACTOR_STEPS
from acme_qsm.experiments.counts import LEARNER_STEPS
from acme_qsm.experiments.one_seed import OneActor

_POLL_SECONDS = 0.2


def work(run: DistributedRun, link: Link) -> None:
  """Evaluates whenever it is time, until the run is over."""
  with contextlib.suppress(RunIsOverError):
    _evaluate(run, link)


def _evaluate(run: DistributedRun, link: Link) -> None:
  variables = variables_lib.RemoteVariables(
    lambda: variables_lib.connect(run, link),
    # Old parameters would say nothing of the step that they are shown at.
    wait=True,
  )
  key = run.seeds.evaluator_key(
    link.count(ACTOR_STEPS), link.orders.incarnation
  )
  actor = OneActor(run.parts.evaluator(key, variables))
  records = run.records()

  def make_environment(steps: int) -> time_steps.Checked:
    seed = run.seeds.evaluation_environment(steps)
    environment = Environment(
      lambda: run.experiment.environment_factory(seed),
      link.deadline.within,
      run.hang_seconds,
    )
    return time_steps.Checked(
      environment, run.environment_spec.observations, "Evaluation"
    )

  evaluations = evaluation.Evaluations(
    make_environment, records, records.last_evaluation()
  )

  def get_counts(seed: int) -> dict[str, float]:
    del seed
    return {**link.orders.counts, LEARNER_STEPS: variables.learner_steps}

  link.state = "waiting"
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
        steps, said = evaluations.evaluated_at, evaluation.describe(results[0])
        link.note(f"{steps:>9,} environment steps: {said}")
        records.draw_curve(run.experiment.title)
        link.metrics = {
          name: results[0][name]
          for name in ("episode_return", "episode_return_std")
        }
      link.state = "waiting"
    elif _has_learned_all(link):
      link.call("done", "evaluator")
      return
    else:
      time.sleep(_POLL_SECONDS)


def _is_due(run: DistributedRun, link: Link, evaluated_at: int) -> bool:
  steps = link.count(ACTOR_STEPS)
  if steps >= run.schedule.total_steps and not _has_learned_all(link):
    return False  # The last one is of all that was learned.
  return run.schedule.is_due(steps, evaluated_at)


def _has_learned_all(link: Link) -> bool:
  return link.orders.phase is Phase.LEARNING and link.orders.learner_done
