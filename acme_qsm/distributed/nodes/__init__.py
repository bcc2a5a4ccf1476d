"""What each process of a distributed run does, whatever engine starts it."""

from acme_qsm.distributed.coordination.link import Link
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
  # Each loads what it needs alone: TensorFlow, which Reverb loads, takes longer
  # than all else.
  if role == "replay":
    from acme_qsm.distributed.nodes.replay import run_replay

    run_replay(run, link)
  elif role == "learner":
    from acme_qsm.distributed.nodes.learner import run_learner

    run_learner(run, link)
  elif role == "evaluator":
    from acme_qsm.distributed.nodes.evaluator import run_evaluator

    run_evaluator(run, link)
  else:
    from acme_qsm.distributed.nodes.actor import run_actor

    run_actor(run, link, int(index))
  link.state = "done"  # Or evicted, as the link knows.
  link.close()
