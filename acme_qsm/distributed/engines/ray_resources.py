"""What each process of a run asks of a Ray cluster."""

import math
import typing
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from acme_qsm.experiments.config import ExperimentError

if typing.TYPE_CHECKING:
  from acme_qsm.distributed.plan import Plan


def share_out(
  plan: "Plan", replay_bytes: int, machines: Sequence[Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
  """Says what each process asks of Ray.

  A core each, or an equal part of one where there are fewer; the learner a GPU,
  if there is any; replay a machine with the memory that it needs when it is
  full; and actors are spread over the machines.

  Args:
    plan: the run.
    replay_bytes: the memory that replay takes when it is full.
    machines: each machine's resources.

  Returns:
    Options of Ray actors, by the processes' names.

  Raises:
    ExperimentError: if there is no machine with enough memory for replay, or no
      machine with cores at all.
  """
  names = (*plan.others, *plan.actors)
  num_cpus = _largest_share(
    len(names), [machine.get("CPU", 0.0) for machine in machines]
  )
  has_gpu = any(machine.get("GPU", 0.0) >= 1 for machine in machines)
  most = max(machine.get("memory", 0.0) for machine in machines)
  if replay_bytes > most:
    raise ExperimentError(
      f"Replay takes {replay_bytes / 1e9:.1f} GB when it is full, but no "
      f"machine of the cluster has more than {most / 1e9:.1f} GB: lower "
      "max_replay_size."
    )
  options: dict[str, dict[str, Any]] = {
    name: {"num_cpus": num_cpus} for name in names
  }
  options["learner"]["num_gpus"] = 1 if has_gpu else 0
  options["replay"]["memory"] = replay_bytes
  for name in plan.actors:
    options[name]["scheduling_strategy"] = "SPREAD"
  return options


def _largest_share(num_processes: int, cores: Sequence[float]) -> float:
  """The largest 1, 1/2, 1/3, ... of a core that all processes can have."""
  if not any(cores):
    raise ExperimentError("The Ray cluster has no CPUs to run on.")
  parts = 1
  while sum(math.floor(c * parts + 1e-9) for c in cores) < num_processes:
    parts += 1
  # Ray counts in ten-thousandths; rounded up, they might not fit.
  return math.floor(10_000 / parts) / 10_000
