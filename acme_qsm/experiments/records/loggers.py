"""Logs as CSV tables and TensorBoard events, which a resumed run continues."""

import contextlib
import csv
import errno
import io
import itertools
import os
import re
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2
from tensorboard.compat.proto import summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from acme_qsm.experiments.records.disk import Disk
from acme_qsm.experiments.records.disk import write_atomically

# Their generated classes are invisible to type checkers.
_events: Any = event_pb2
_summaries: Any = summary_pb2

_LABEL = re.compile(r"[\w.-]+")
_STEPS = "actor_steps"


class Logger:
  """Writes rows to a CSV file and to TensorBoard, as Acme's loggers do.

  Every row is in the files when `write` returns, and no file is kept open.
  """

  def __init__(
    self,
    label: str,
    path: Path,
    event_file: "_EventFile",
    steps_key: str | None,
  ):
    """Initialises the logger: see `make_logger_factory`."""
    self._label = label
    self._path = path
    self._event_file = event_file
    self._steps_key = steps_key
    self._fields, rows = _read_table(path)
    if path.exists():
      # A killed process may have left half a row.
      _write_table(path, self._fields, rows)

  def write(self, values: Mapping[str, Any]) -> None:
    """Adds a row.

    Args:
      values: scalars by name: Python numbers, or numpy or jax arrays of one
        element.

    Raises:
      ValueError: if a value is not one number.
      OSError: if writing fails; the files then keep their whole rows.
    """
    row = {key: _to_scalar(key, value) for key, value in values.items()}
    if not row:
      return
    new_fields = [key for key in row if key not in self._fields]
    if new_fields:
      fields = self._fields + new_fields
      _write_table(self._path, fields, _read_table(self._path)[1])
      self._fields = fields
    cells = [str(row.get(key, "")) for key in self._fields]
    _append(self._path, _format_table([cells]))
    step = row.pop(_STEPS, row.get(self._steps_key or ""))
    if step is not None:
      self._event_file.add_scalars(
        int(step),
        {f"{self._label}/{key}": float(value) for key, value in row.items()},
      )

  def close(self) -> None:
    """Does nothing: every row is already written."""


class LossyLogger:
  """Drops the rows that cannot be written: a run goes on with a full disk."""

  def __init__(self, what: str, make_logger: Callable[[], Any], disk: Disk):
    """Initialises the logger.

    Args:
      what: the log.
      make_logger: makes the logger that writes, which may need the disk too.
      disk: says what cannot be written.
    """
    self._what = what
    self._make_logger = make_logger
    self._disk = disk
    self._logger: Any = None

  def write(self, values: Mapping[str, Any]) -> None:
    """Adds a row, if that can be done: see `Logger.write`."""
    self._disk.attempt(self._what, lambda: self._get().write(values))

  def _get(self) -> Any:
    if self._logger is None:
      self._logger = self._make_logger()
    return self._logger

  def close(self) -> None:
    """Closes the logger that writes, if there is one yet."""
    self._disk.forget(self._what)
    if self._logger is not None:
      with contextlib.suppress(OSError):
        self._logger.close()


def make_logger_factory(
  directory: str | os.PathLike[str],
) -> Callable[..., Logger]:
  """Makes a factory of loggers that share a directory.

  Rows go to `<directory>/logs/<label>.csv`, and as `<label>/<key>` to
  TensorBoard events in `<directory>/tensorboard`. A logger goes on where the
  files end: call `rewind` first if the run goes on from an earlier step.

  Args:
    directory: the run's directory.

  Returns:
    `factory(label, steps_key=None, instance=0)`, which makes a logger. An
    instance above 0 adds `_<instance>` to the label. TensorBoard's step is the
    row's `actor_steps`, or else what it has under steps_key; a row with neither
    is in the CSV file only.
  """
  directory = Path(directory)
  (directory / "logs").mkdir(parents=True, exist_ok=True)
  # One for all labels: TensorBoard reads a directory's files one by one.
  event_file = _EventFile(directory / "tensorboard")

  def factory(
    label: str, steps_key: str | None = None, instance: int = 0
  ) -> Logger:
    if not _LABEL.fullmatch(label):
      raise ValueError(f"A label must do as a file's name, got {label!r}.")
    if instance:
      label = f"{label}_{instance}"
    path = directory / "logs" / f"{label}.csv"
    return Logger(label, path, event_file, steps_key)

  return factory


def rewind(directory: str | os.PathLike[str], actor_steps: int) -> None:
  """Drops what was logged after a step, to go on from there.

  Call it before any logger is made. Rows without `actor_steps` stay.

  Args:
    directory: the run's directory; it may hold no logs yet.
    actor_steps: the last step to keep.

  Raises:
    OSError: if writing fails; each file is then as before or done.
  """
  directory = Path(directory)
  for path in sorted((directory / "logs").glob("*.csv")):
    fields, rows = _read_table(path)
    if _STEPS in fields:
      column = fields.index(_STEPS)
      rows = [
        row
        for row in rows
        if not row[column] or float(row[column]) <= actor_steps
      ]
    _write_table(path, fields, rows)
  if list((directory / "tensorboard").glob("*tfevents*")):
    # TensorBoard then discards all that came before with this step or later.
    start = _events.SessionLog(status=_events.SessionLog.START)
    _EventFile(directory / "tensorboard").add(
      step=actor_steps + 1, session_log=start
    )


def read_csv(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads a table that a logger wrote, or is writing.

  Args:
    path: the CSV file.

  Returns:
    The columns by name, each [rows] float64 with NaN for empty cells; none if
    there is no such file.

  Raises:
    OSError: if the file cannot be read.
    ValueError: if a cell is not a number.
  """
  fields, rows = _read_table(Path(path))
  values = np.array(
    [[float(cell) if cell else np.nan for cell in row] for row in rows],
    np.float64,
  ).reshape(len(rows), len(fields))
  return {field: values[:, i] for i, field in enumerate(fields)}


class _EventFile:
  """A new TensorBoard event file.

  TensorBoard's own writer would load TensorFlow where it is installed.
  """

  def __init__(self, directory: Path):
    directory.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files in the order of their names. Other processes
    # of the run make theirs at the same time.
    for index in itertools.count(len([*directory.glob("*tfevents*")])):
      self._path = directory / f"events.out.tfevents.{index:010d}"
      with contextlib.suppress(FileExistsError):
        self._path.touch(exist_ok=False)
        break
    self.add(file_version="brain.Event:2")

  def add(self, **fields: Any) -> None:
    event = _events.Event(wall_time=time.time(), **fields)
    record = io.BytesIO()
    RecordWriter(record).write(event.SerializeToString())
    _append(self._path, record.getvalue())

  def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
    value = [
      _summaries.Summary.Value(tag=tag, simple_value=number)
      for tag, number in values.items()
    ]
    self.add(step=step, summary=_summaries.Summary(value=value))


def _to_scalar(key: str, value: Any) -> Any:
  """Returns a value as a numpy scalar, or an int if it is a bool."""
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind in "OSUMm":
    raise ValueError(
      f"{key} must be one number, got {array.dtype} {array.shape}."
    )
  scalar = array.reshape(())[()]
  return int(scalar) if array.dtype.kind == "b" else scalar


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
  """Returns a CSV file's header and rows, without a half-written last line."""
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    data = b""
  text = data[: data.rfind(b"\n") + 1].decode()
  fields, *rows = list(csv.reader(io.StringIO(text))) or [[]]
  return fields, rows


def _write_table(
  path: Path, fields: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
  """Writes a CSV file; rows that end early get empty cells."""
  filled = [[*row, *[""] * (len(fields) - len(row))] for row in rows]
  write_atomically(path, _format_table([fields, *filled] if fields else []))


def _format_table(rows: Sequence[Sequence[str]]) -> bytes:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(rows)
  return text.getvalue().encode()


def _append(path: Path, data: bytes) -> None:
  """Appends to a file all of data or, if that fails, nothing."""
  with path.open("ab", buffering=0) as file:
    size = file.tell()
    try:
      if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    except OSError:
      file.truncate(size)
      raise
