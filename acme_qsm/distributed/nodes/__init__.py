"""What each process of a distributed run does, whatever engine starts it."""

from collections.abc import Callable

from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes import actor
from acme_qsm.distributed.nodes import evaluator
from acme_qsm.distributed.nodes import learner
from acme_qsm.distributed.nodes import replay
from acme_qsm.distributed.nodes.run import Run

__all__ = ["Run", "run_node"]


def run_node(run: Run, link: Link) -> None:
  """Does the work of one process until the run ends.

  Args:
    run: the run.
    link: its link, under its name: "replay", "learner", "evaluator" or
      "actor_<i>".
  """
  role, _, index = link.name.partition("_")
  functions: dict[str, Callable[[], None]] = {
    "replay": lambda: replay.run_replay(run, link),
    "learner": lambda: learner.run_learner(run, link),
    "evaluator": lambda: evaluator.run_evaluator(run, link),
    "actor": lambda: actor.run_actor(run, link, int(index)),
  }
  functions[role]()
  link.state = "done"  # Or evicted, as the link knows.
  link.close()
