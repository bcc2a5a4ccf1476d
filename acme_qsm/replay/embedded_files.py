"""The files of an embedded replay's content: arrays and an index, no code.

Needs numpy alone.
"""

import contextlib
import json
import os
import pathlib
import uuid
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

DTYPE = np.dtype("<f4")
INDEX = "embedded_replay.json"
_VERSION = 3
# Of a file of transitions. A checkpoint writes at most two that are not new
# altogether: small files waste little, and there should not be many.
_FILE_BYTES = 8 << 20


class File(NamedTuple):
  """A file of transitions, by their numbers; no name is used twice."""

  name: str
  begin: int
  end: int


class Index(NamedTuple):
  """What a folder says of the replay that it holds.

  Attributes:
    row_size: the numbers of a packed transition.
    extras: what the extras at its end are.
    size: transitions that the replay held.
    num_inserts: transitions ever inserted.
    num_samples: transitions ever drawn.
    random: the state of its random numbers.
    files: of the transitions, the oldest first.
  """

  row_size: int
  extras: Sequence[str]
  size: int
  num_inserts: int
  num_samples: int
  random: Any
  files: Sequence[File]


def rows_per_file(row_size: int) -> int:
  """How many packed transitions of so many numbers a file holds at most."""
  return max(1, _FILE_BYTES // (row_size * DTYPE.itemsize))


def write_index(folder: pathlib.Path, index: Index) -> None:
  """Writes the index, after the files; raises OSError."""
  content = {"version": _VERSION, **index._asdict()}
  (folder / INDEX).write_text(json.dumps(content, indent=2))


def read_index(folder: pathlib.Path) -> Index:
  """Reads and checks the index.

  Args:
    folder: the folder.

  Returns:
    The index; its files hold all transitions without a gap.

  Raises:
    OSError, ValueError, KeyError, TypeError: if it is missing or damaged.
  """
  content = json.loads((folder / INDEX).read_bytes())
  version = content.pop("version")
  if version != _VERSION:
    raise ValueError(
      f"it has version {version!r}; this release reads {_VERSION}. Go on with "
      "the release that wrote it."
    )
  index = Index(**content)
  index = index._replace(files=[File(*file) for file in index.files])
  counts = {
    name: getattr(index, name)
    for name in ("row_size", "size", "num_inserts", "num_samples")
  }
  for name, count in counts.items():
    if type(count) is not int or not 0 <= count < 1 << 63:
      raise ValueError(f"{name} is {count!r}.")
  at = index.num_inserts - index.size
  for file in index.files:
    if pathlib.PurePath(file.name).name != file.name:
      raise ValueError(f"{file.name!r} is no file's name.")
    if not file.begin <= at < file.end:
      raise ValueError(f"transition {at} is missing.")
    at = file.end
  if at != index.num_inserts:
    raise ValueError(f"its files end at transition {at}.")
  return index


def write(folder: pathlib.Path, begin: int, rows: np.ndarray) -> File:
  """Writes a file of transitions.

  Args:
    folder: where to.
    begin: the number of the first.
    rows: [k, row_size] the transitions.

  Returns:
    The file, which has a name of its own.

  Raises:
    OSError: if it cannot be written.
  """
  name = f"{begin:012d}_{uuid.uuid4().hex}.npy"
  with (folder / name).open("xb") as stream:
    np.lib.format.write_array_header_1_0(
      stream, np.lib.format.header_data_from_array_1_0(rows)
    )
    # By `np.save`, an error would not say that the disk is full.
    stream.write(rows.data)
  return File(name, begin, begin + len(rows))


def link(previous: pathlib.Path, folder: pathlib.Path, file: File) -> bool:
  """Links a file of an earlier save; returns whether it could be linked."""
  # It may not be there, or the file system have no links.
  with contextlib.suppress(OSError):
    os.link(previous / file.name, folder / file.name)
    return True
  return False


def read(folder: pathlib.Path, file: File, row_size: int) -> np.ndarray:
  """Reads a file's transitions [k, row_size]; raises if it is damaged."""
  with (folder / file.name).open("rb") as stream:
    rows = np.lib.format.read_array(stream, allow_pickle=False)
    if stream.read(1):
      raise ValueError(f"{file.name} goes on after its end.")
  shape = (file.end - file.begin, row_size)
  if rows.shape != shape or rows.dtype != DTYPE:
    raise ValueError(
      f"{file.name} holds {rows.dtype} {rows.shape} instead of {DTYPE} {shape}."
    )
  if not np.isfinite(rows).all():
    raise ValueError(f"{file.name} has a NaN or an infinity.")
  return rows


@contextlib.contextmanager
def as_value_error(folder: pathlib.Path) -> Iterator[None]:
  """Raises what goes wrong with a folder as a ValueError that names it."""
  try:
    yield
  # Damaged files make json and numpy raise errors of many types.
  except Exception as error:
    raise ValueError(f"Replay in {folder}: {error}") from error
