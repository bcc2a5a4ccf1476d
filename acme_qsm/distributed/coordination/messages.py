"""What the coordinator and the processes of a run say to each other."""

import dataclasses
import enum
from collections.abc import Mapping

NOT_STARTED = "starting"
LOADING = "loading libraries"
COMPILING = "compiling"
DONE = "done"
EVICTED = "evicted"
GIVEN_UP = "given up"
ENDED_STATES = frozenset({NOT_STARTED, DONE, EVICTED, GIVEN_UP})
"""States of processes that are not there, yet or any more."""


class Phase(str, enum.Enum):
  """How far a run is.

  Attributes:
    ACTING: actors act and the learner learns.
    LEARNING: all environment steps are made; the learner makes the steps that
      they call for, saves, and a last evaluation is made.
    FINISHED: the run has done all it was to do.
    INTERRUPTED: somebody asked it to stop, and the learner has saved.
    FAILED: it cannot go on.
  """

  ACTING = "acting"
  LEARNING = "learning"
  FINISHED = "finished"
  INTERRUPTED = "interrupted"
  FAILED = "failed"

  @property
  def over(self) -> bool:
    """Whether every process is to end."""
    return self not in (Phase.ACTING, Phase.LEARNING)


@dataclasses.dataclass(frozen=True)
class Report:
  """What a process says of itself, about once a second.

  Attributes:
    node: its name, such as "learner" or "actor_0".
    incarnation: tells this process from one that had the name before.
    state: what it is doing, in a word or two.
    host: the IP address of the machine that it runs on.
    pid: its number there.
    totals: counts since this process started, such as `actor_steps`.
    metrics: what else there is to show.
  """

  node: str
  incarnation: str
  state: str
  host: str = ""
  pid: int = 0
  totals: Mapping[str, float] = dataclasses.field(default_factory=dict)
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Orders:
  """The answer to a report.

  Attributes:
    phase: of the run.
    interrupting: whether the run is to be interrupted once it is saved.
    counts: totals of all processes, those before a resume included; and the
      learner's `learner_steps`, which fall when it goes back to a checkpoint.
    learner_done: whether the learner has saved for the last time.
    incarnation: how often the process was started again.
    addresses: where each service that has been announced is to be found.
    given_up: whether the process should end, since it has failed too often or
      another one has taken its place.
  """

  phase: Phase
  interrupting: bool
  counts: dict[str, float]
  learner_done: bool
  incarnation: int
  addresses: dict[str, str]
  given_up: bool
