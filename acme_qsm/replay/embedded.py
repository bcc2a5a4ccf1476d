"""Replay in the memory of the process that acts and learns.

The smallest ring that does: flashbax, made for this, needs flax and tensorstore
and keeps replay on the device. Needs numpy alone.
"""

import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acme_qsm.replay import embedded_files
from acme_qsm.replay.embedded_files import File
from acme_qsm.replay.pacing import Pace
from acme_qsm.types import NonFiniteError


class Sample(NamedTuple):
  """Transitions drawn from replay.

  Attributes:
    data: [B, D] packed transitions, float32; an array of its own.
    indices: [B] which ones they are, counted from 0 for the first ever
      inserted.
  """

  data: np.ndarray
  indices: np.ndarray


class EmbeddedReplay:
  """A ring of packed transitions, each as likely to be drawn as the others.

  When it is full, each insert overwrites the oldest. Rows that have not been
  written take no memory. One thread at a time may use it.
  """

  def __init__(
    self,
    row_size: int,
    max_size: int,
    pace: Pace,
    seed: int = 0,
    *,
    extras: Sequence[str] = (),
  ):
    """Initialises an empty replay.

    Args:
      row_size: D, the numbers of a packed transition.
      max_size: transitions at most.
      pace: samples per insert of a transition.
      seed: of the draws.
      extras: what the extras at a transition's end are, such as
        `TransitionCodec.describe_extras` says; what is saved tells it.

    Raises:
      ValueError: if a size is not positive.
    """
    if row_size < 1 or max_size < 1:
      raise ValueError(
        "Replay needs a positive size, got "
        f"{max_size} transitions of {row_size} numbers."
      )
    self._rows = np.empty((max_size, row_size), embedded_files.DTYPE)
    self._extras = list(extras)
    self._pace = pace
    self._random = np.random.default_rng(seed)
    self._num_inserts = 0
    self._num_samples = 0
    self._size = 0
    # The last checkpoint's files that hold what replay holds, by their ends.
    self._files: dict[int, File] = {}

  @property
  def client(self) -> "EmbeddedReplay":
    """Itself, where a builder takes the client of a Reverb server."""
    return self

  @property
  def max_size(self) -> int:
    """The number of transitions that it can hold."""
    return len(self._rows)

  @property
  def bytes_per_transition(self) -> int:
    """What a transition takes."""
    return self._rows.shape[1] * self._rows.itemsize

  def num_inserts(self) -> int:
    """The transitions ever inserted."""
    return self._num_inserts

  def num_samples(self) -> int:
    """The transitions ever drawn."""
    return self._num_samples

  def num_samples_due(self) -> float:
    """How many samples the inserts so far call for, 0 below the least size."""
    return self._pace.num_samples_due(self._num_inserts)

  def size(self) -> int:
    """The number of transitions that it holds."""
    return self._size

  def rows(self) -> np.ndarray:
    """A copy of the packed transitions [size, D], the oldest first."""
    return self._rows[self._places(self._oldest, self._num_inserts)].copy()

  def insert(self, rows: np.ndarray) -> None:
    """Inserts transitions.

    Args:
      rows: [k, D] packed transitions, the oldest first; they are copied.

    Raises:
      ValueError: if they have another shape.
      NonFiniteError: if one has a NaN or an infinity; none is inserted then.
    """
    rows = np.asarray(rows, embedded_files.DTYPE)
    max_size, row_size = self._rows.shape
    if rows.ndim != 2 or rows.shape[1] != row_size:
      raise ValueError(
        f"Replay holds rows of {row_size} numbers, got shape {rows.shape}."
      )
    if not np.isfinite(rows).all():
      raise NonFiniteError("A transition has a NaN or an infinity.")
    end = self._num_inserts + len(rows)
    kept = rows[-max_size:]
    self._rows[self._places(end - len(kept), end)] = kept
    self._num_inserts = end
    self._size = min(self._size + len(rows), max_size)

  def sample(self, batch_size: int) -> Sample:
    """Draws transitions, with replacement.

    Args:
      batch_size: B, how many.

    Returns:
      The transitions.

    Raises:
      ValueError: if there are none.
    """
    if not self._size:
      raise ValueError("Replay is empty.")
    indices = self._random.integers(self._size, size=batch_size)
    indices += self._oldest
    # A new array for each sample: JAX may read it in place, and later.
    data = self._rows.take(indices % len(self._rows), axis=0)
    self._num_samples += batch_size
    return Sample(data, indices)

  def batches(self, batch_size: int) -> Iterator[Sample]:
    """Draws batches without end, each when it is asked for."""
    while True:
      yield self.sample(batch_size)

  def refresh(self, sample: Sample) -> Sample:
    """The same transitions as they are by now.

    Args:
      sample: from `sample`.

    Returns:
      The sample with the extras that were written since; transitions that are
      no longer there are as they were.
    """
    held = sample.indices >= self._oldest
    data = sample.data.copy()
    data[held] = self._rows[sample.indices[held] % len(self._rows)]
    return sample._replace(data=data)

  def write_extras(self, indices: np.ndarray, extras: np.ndarray) -> None:
    """Changes the extras of transitions that were drawn.

    The next save writes all files anew.

    Args:
      indices: [B] which ones, from `sample`; those that are no longer there are
        left out, and of one that is there twice the last counts.
      extras: [B, E] the ends of their rows, from `TransitionCodec.pack_extras`.

    Raises:
      NonFiniteError: if one has a NaN or an infinity; none is changed then.
    """
    if not np.isfinite(extras).all():
      raise NonFiniteError(
        "A transition's new extras have a NaN or an infinity."
      )
    held = indices >= self._oldest
    places = indices[held] % len(self._rows)
    self._rows[places, self._rows.shape[1] - extras.shape[1] :] = extras[held]
    self._files = {}

  def save(
    self, folder: pathlib.Path, previous: pathlib.Path | None = None
  ) -> None:
    """Writes the content, and where its draws are, into a new folder.

    Files of transitions that an earlier save wrote and that have not changed
    become hard links.

    Args:
      folder: where to; its parent exists.
      previous: the folder of an earlier save, on the same file system.

    Raises:
      OSError: if it cannot be written.
    """
    folder.mkdir()
    row_size = self._rows.shape[1]
    length = embedded_files.rows_per_file(row_size)
    files = []
    # Files end at fixed numbers of transitions, so that a full one stays as it
    # is.
    for start in range(
      self._oldest // length * length, self._num_inserts, length
    ):
      begin = max(start, self._oldest)
      end = min(start + length, self._num_inserts)
      file = self._files.get(end)
      if (
        previous is None
        or file is None
        or file.begin > begin
        or not embedded_files.link(previous, folder, file)
      ):
        rows = self._rows[self._places(begin, end)]
        file = embedded_files.write(folder, begin, rows)
      files.append(file)
    embedded_files.write_index(
      folder,
      embedded_files.Index(
        row_size=row_size,
        extras=self._extras,
        size=self._size,
        num_inserts=self._num_inserts,
        num_samples=self._num_samples,
        random=self._random.bit_generator.state,
        files=files,
      ),
    )
    self._files = {file.end: file for file in files}

  def restore(self, folder: pathlib.Path) -> None:
    """Goes on from what a replay has saved.

    Of more transitions than it can hold, it takes the newest.

    Args:
      folder: the folder.

    Raises:
      ValueError: says what is missing, damaged or does not fit; the replay is
        as it was then.
    """
    max_size, row_size = self._rows.shape
    with embedded_files.as_value_error(folder):
      saved = embedded_files.read_index(folder)
      for found, own, what in (
        (saved.row_size, row_size, "numbers in a transition"),
        (saved.extras, self._extras, "extras of a transition"),
      ):
        if found != own:
          raise ValueError(f"it holds {found} {what} instead of {own}.")
      if self._size:
        raise ValueError("only an empty replay can go on from it.")
      random = np.random.default_rng(0)
      random.bit_generator.state = saved.random
      size = min(saved.size, max_size)
      for file in saved.files:
        begin = max(file.begin, saved.num_inserts - size)
        if begin < file.end:
          rows = embedded_files.read(folder, file, row_size)
          places = self._places(begin, file.end)
          self._rows[places] = rows[begin - file.begin :]
    self._random = random
    self._num_inserts = saved.num_inserts
    self._num_samples = saved.num_samples
    self._size = size
    self._files = {file.end: file for file in saved.files}

  def stop(self) -> None:
    """Does nothing: its memory is freed with it."""

  @property
  def _oldest(self) -> int:
    """The number of the oldest transition that it holds."""
    return self._num_inserts - self._size

  def _places(self, begin: int, end: int) -> slice | np.ndarray:
    """Where in the ring the transitions of these numbers are, in order."""
    start = begin % len(self._rows)
    if start + end - begin <= len(self._rows):
      return slice(start, start + end - begin)
    return np.arange(begin, end) % len(self._rows)


def wrote(folder: pathlib.Path) -> bool:
  """Whether what is in a folder was saved by an `EmbeddedReplay`."""
  return (folder / embedded_files.INDEX).is_file()


def read(folder: pathlib.Path) -> EmbeddedReplay:
  """Reads what an `EmbeddedReplay` has saved, whatever its size was.

  Args:
    folder: the folder.

  Returns:
    A replay that is full of it, with no pace of its own.

  Raises:
    ValueError: says what is missing or damaged.
  """
  with embedded_files.as_value_error(folder):
    saved = embedded_files.read_index(folder)
  replay = EmbeddedReplay(
    max(saved.row_size, 1),
    max(saved.size, 1),
    Pace(1.0, 1, 0.0, 0.0),
    extras=saved.extras,
  )
  replay.restore(folder)
  return replay
