"""What each process of a distributed run does, whatever engine starts it."""

import importlib

from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.distributed_run import DistributedRun

ROLES = ("replay", "learner", "evaluator", "actor")


def run_node(run: DistributedRun, link: Link) -> None:
  """Does the work of one process until the run ends.

  Args:
    run: the run.
    link: its link, under its name: "replay", "learner", "evaluator" or
      "actor_<i>".
  """
  role = link.name.partition("_")[0]
  # Each role loads what it needs alone: TensorFlow, which Reverb loads, takes
  # longer than all else.
  importlib.import_module(f"{__name__}.{role}").work(run, link)
  link.state = "done"  # Or evicted, as the link knows.
  link.close()
