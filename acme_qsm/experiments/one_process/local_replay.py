"""Replay and learning for a run in one process, in turn with acting."""

import functools
import pathlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import get_args
from typing import Protocol

import jax

from acme_qsm import needs
from acme_qsm.experiments.config import ReplayKind
from acme_qsm.experiments.records import run_records
from acme_qsm.experiments.records.checkpointing import Checkpoint
from acme_qsm.experiments.records.checkpointing import CheckpointError
from acme_qsm.experiments.records.workdir import Workdir
from acme_qsm.experiments.run import AgentParts
from acme_qsm.replay import embedded
from acme_qsm.replay import memory_limit
from acme_qsm.replay.embedded import EmbeddedReplay


class Replay(Protocol):
  """What the loop asks of replay.

  Attributes:
    client: what an agent's parts reach it by.
  """

  client: Any

  def num_samples_due(self) -> float:
    """The samples that what was inserted so far calls for, in all."""
    ...

  def num_samples(self) -> int:
    """The samples ever taken."""
    ...

  def size(self) -> int:
    """The number of items that it holds."""
    ...

  def save(
    self, folder: pathlib.Path, previous: pathlib.Path | None = None
  ) -> None:
    """Writes its content into a new folder.

    Args:
      folder: the folder.
      previous: where the checkpoint before has it, if there is one.
    """
    ...

  def stop(self) -> None:
    """Ends it."""
    ...


Start = Callable[[Workdir | None, Checkpoint | None], Replay]
"""Starts replay, from a checkpoint if there is one."""


def prepare_replays(
  kind: ReplayKind, parts: AgentParts, seeds: Sequence[int]
) -> list[Start]:
  """Makes replays ready to start, which nothing is wrong with then.

  Args:
    kind: which replay; "auto" for the one that the run had before, for a new
      run the embedded one if the builder makes it, or else Reverb.
    parts: the agent's parts.
    seeds: of the draws of an embedded replay for each of the run's seeds; one,
      unless the kind is "embedded".

  Returns:
    For each (the run's work directory, the checkpoint to go on from) -> the
    replay, started; raises CheckpointError if it cannot go on from there.

  Raises:
    ValueError: if the agent cannot have that replay, or memory does not hold
      them all.
  """
  if kind not in get_args(ReplayKind):
    raise ValueError(
      f"replay must be one of {get_args(ReplayKind)}, got {kind!r}."
    )
  embeds = parts.makes_embedded_replay()
  if kind == "embedded" and not embeds:
    raise ValueError(
      "replay must be 'reverb': this agent's builder makes Reverb's tables, "
      "and no embedded replay."
    )
  if kind == "reverb" or not embeds:
    return [_prepare_reverb(parts)]
  replays = [parts.embedded_replay(seeds[0])]
  memory_limit.require_memory(
    replays[0].max_size,
    replays[0].bytes_per_transition,
    memory_limit.available_memory(),
    num_replays=len(seeds),
  )
  replays += [parts.embedded_replay(seed) for seed in seeds[1:]]
  starts: list[Start] = [
    functools.partial(_start_embedded, each) for each in replays
  ]
  if kind == "embedded":
    return starts

  def start_as_before(
    workdir: Workdir | None, checkpoint: Checkpoint | None
  ) -> Replay:
    (start_embedded,) = starts
    if checkpoint is None or not _is_of_reverb(checkpoint):
      return start_embedded(workdir, checkpoint)
    return _prepare_reverb(parts)(workdir, checkpoint)

  return [start_as_before]


def _prepare_reverb(parts: AgentParts) -> Start:
  # Not everyone has Reverb.
  local_reverb = needs.load(
    "acme_qsm.experiments.one_process.local_reverb", "This run's replay"
  )
  return local_reverb.prepare(parts.tables())


def _is_of_reverb(checkpoint: Checkpoint) -> bool:
  folder = checkpoint.path / "replay"
  return folder.is_dir() and not embedded.wrote(folder)


def _start_embedded(
  replay: EmbeddedReplay,
  workdir: Workdir | None,
  checkpoint: Checkpoint | None,
) -> EmbeddedReplay:
  del workdir
  folder = run_records.replay_content(checkpoint)
  if folder is None:
    return replay
  if not embedded.wrote(folder):
    raise CheckpointError(
      f"Reverb wrote the replay in {folder.parent}: go on with --replay reverb."
    )
  try:
    replay.restore(folder)
  except ValueError as error:
    raise CheckpointError(str(error)) from error
  return replay


class Batches:
  """Batches from replay, of which the next can be fetched ahead.

  Attributes:
    num_samples: the samples in the batches that were given out, those before a
      resume included.
  """

  def __init__(self, replay: Replay, parts: AgentParts):
    """Initialises the batches.

    Args:
      replay: where they come from.
      parts: makes the iterator over them.
    """
    self._replay = replay
    self._dataset: Iterator[Any] = parts.dataset(replay.client)
    self._fetched: Any = None
    self._samples_due = 0.0
    # What was on its way to the learner when a run was cut off is lost, but the
    # rate limiter counts it: who waited for it would wait for ever.
    self.num_samples = replay.num_samples()

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    self._fetch()
    batch, self._fetched = self._fetched, None
    self.num_samples += jax.tree.leaves(batch)[0].shape[0]
    return batch

  @property
  def are_due(self) -> bool:
    """Whether a learner step is due, as of the last `prepare`."""
    return self.num_samples < self._samples_due

  def prepare(self) -> None:
    """Looks how many are due by now, and fetches the first of them."""
    self._samples_due = self._replay.num_samples_due()
    if self.are_due:
      self._fetch()

  def _fetch(self) -> None:
    if self._fetched is None:
      self._fetched = next(self._dataset)
