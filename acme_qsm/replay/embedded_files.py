"""The files of an embedded replay's content: arrays and an index, no code.

Needs numpy alone.
"""

import contextlib
import json
import os
import pathlib
import tokenize
import uuid
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

import numpy as np

DTYPE = np.dtype("<f4")
INDEX = "embedded_replay.json"
_VERSION = 1
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
    extras_size: those at its end that learning changes.
    max_size: transitions that the replay could hold.
    size: those that it held.
    num_inserts: transitions ever inserted.
    num_samples: transitions ever drawn.
    random: the state of its random numbers.
    files: of the transitions, the oldest first.
  """

  row_size: int
  extras_size: int
  max_size: int
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
  files = [file._asdict() for file in index.files]
  content = {"version": _VERSION, **index._asdict(), "files": files}
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
  if content["version"] != _VERSION:
    raise ValueError(
      f"it has version {content['version']!r}; this release reads "
      f"{_VERSION}. Go on with the release that wrote it."
    )
  # Extras were not said before there were any.
  content = {"extras_size": 0, **content}
  counts = {
    name: _count(content, name)
    for name in Index._fields
    if name not in ("random", "files")
  }
  files = [
    File(str(file["name"]), _count(file, "begin"), _count(file, "end"))
    for file in content["files"]
  ]
  index = Index(**counts, random=content["random"], files=files)
  at = index.num_inserts - index.size
  for file in files:
    if pathlib.PurePath(file.name).name != file.name:
      raise ValueError(f"{file.name!r} is no file's name.")
    if not file.begin <= at < file.end:
      raise ValueError(f"transition {at} is missing.")
    at = file.end
  if at != index.num_inserts:
    raise ValueError(f"its files end at transition {at}.")
  return index


def _count(content: Any, name: str) -> int:
  value = content[name]
  if type(value) is not int or not 0 <= value < 1 << 63:
    raise ValueError(f"{name} is {value!r}.")
  return value


def write(
  folder: pathlib.Path, begin: int, views: Sequence[np.ndarray]
) -> File:
  """Writes a file of transitions.

  Args:
    folder: where to.
    begin: the number of the first.
    views: [k, row_size] the transitions, in one part or more.

  Returns:
    The file, which has a name of its own.

  Raises:
    OSError: if it cannot be written.
  """
  end = begin + sum(map(len, views))
  file = File(f"{begin:012d}_{uuid.uuid4().hex}.npy", begin, end)
  shape = (end - begin, views[0].shape[1])
  with (folder / file.name).open("xb") as stream:
    np.lib.format.write_array_header_1_0(
      stream, {"descr": DTYPE.str, "fortran_order": False, "shape": shape}
    )
    for view in views:
      stream.write(view.data)
  return file


def read(
  folder: pathlib.Path, file: File, begin: int, views: Sequence[np.ndarray]
) -> None:
  """Reads a file's transitions from one on into their places.

  Args:
    folder: where the file is.
    file: the file.
    begin: the number of the first that is wanted.
    views: [k, row_size] the places of those wanted, in one part or more.

  Raises:
    OSError, ValueError, SyntaxError, tokenize.TokenError: if it is damaged.
  """
  row_size = views[0].shape[1]
  with (folder / file.name).open("rb") as stream:
    _require_header(stream, file, row_size)
    skipped = (begin - file.begin) * row_size * DTYPE.itemsize
    stream.seek(skipped, os.SEEK_CUR)
    for view in views:
      if stream.readinto(view.data.cast("B")) != view.nbytes:
        raise ValueError(f"{file.name} ends too early.")
      if not np.isfinite(view).all():
        raise ValueError(f"{file.name} has a NaN or an infinity.")


def _require_header(stream: BinaryIO, file: File, row_size: int) -> None:
  """Raises ValueError unless a file is as long and of the type that it must."""
  shape = (file.end - file.begin, row_size)
  np.lib.format.read_magic(stream)
  found = np.lib.format.read_array_header_1_0(stream)
  if found != (shape, False, DTYPE):
    raise ValueError(
      f"{file.name} holds {found[2]} {found[0]} instead of {DTYPE} {shape}."
    )
  expected = stream.tell() + shape[0] * shape[1] * DTYPE.itemsize
  length = os.fstat(stream.fileno()).st_size
  if length != expected:
    raise ValueError(f"{file.name} has {length} bytes instead of {expected}.")


@contextlib.contextmanager
def as_value_error(folder: pathlib.Path) -> Iterator[None]:
  """Raises what goes wrong with a folder as a ValueError that names it."""
  try:
    yield
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    OverflowError,
    # Of a damaged header.
    SyntaxError,
    tokenize.TokenError,
  ) as error:
    raise ValueError(f"Replay in {folder}: {error}") from error
