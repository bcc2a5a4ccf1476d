"""A run's work directory: one run's, checked and claimed before work starts."""

import dataclasses
import fcntl
import json
import pathlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.records.checkpointing import write_atomically

CONFIG_FILE = "config.json"
_ID_FILE = "run_id"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class WorkdirError(ValueError):
  """The work directory cannot hold this run."""


def open_workdir(
  checkpointing: CheckpointingConfig, description: Mapping[str, Any]
) -> "Workdir":
  """Claims the work directory for a run.

  Args:
    checkpointing: names the directory.
    description: what identifies the run, made of what JSON can hold; written to
      `config.json` there.

  Returns:
    The directory, locked against other processes until closed.

  Raises:
    WorkdirError: if it cannot be written to, holds a run of another
      description, or belongs to a process that is still running.
  """
  path = pathlib.Path(checkpointing.directory).expanduser().absolute()
  if checkpointing.add_uid:
    path = path / uuid.uuid4().hex[:12]
  try:
    path.mkdir(parents=True, exist_ok=True)
    lock = open(path / ".lock", "w")  # noqa: SIM115  # `Workdir` closes it.
  except OSError as error:
    raise WorkdirError(
      f"The work directory {path} cannot be written to: {error}."
    ) from error
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    lock.close()
    raise WorkdirError(
      f"The work directory {path} is in use by another process."
    ) from error
  workdir = Workdir(path, lock)
  try:
    _claim(path, json.loads(json.dumps(description)))
    workdir.run_id = _run_id(path)
  except BaseException:
    workdir.close()
    raise
  return workdir


class Workdir:
  """A locked work directory.

  Attributes:
    path: where it is.
    run_id: tells its run from any other, also from one just like it.
  """

  def __init__(self, path: pathlib.Path, lock: Any):
    self.path = path
    self.run_id = ""
    self._lock = lock

  def close(self) -> None:
    """Unlocks it."""
    self._lock.close()


def _claim(path: pathlib.Path, description: dict[str, Any]) -> None:
  config_path = path / CONFIG_FILE
  if config_path.exists():
    try:
      found = json.loads(config_path.read_text())
    except json.JSONDecodeError as error:
      raise WorkdirError(f"{config_path} is not JSON: {error}.") from error
    differences = list(_differences(found, description))
    if differences:
      raise WorkdirError(
        f"The work directory {path} holds another run: "
        + "; ".join(differences)
        + ". Choose another work directory, or the run's own settings."
      )
    return
  others = [p.name for p in path.iterdir() if p.name != ".lock"]
  if others:
    raise WorkdirError(
      f"The work directory {path} holds no run but other files "
      f"({', '.join(sorted(others)[:3])}); choose an empty or new one."
    )
  write_atomically(
    config_path, (json.dumps(description, indent=2) + "\n").encode()
  )


def _run_id(path: pathlib.Path) -> str:
  file = path / _ID_FILE
  if not file.exists():
    write_atomically(file, f"{uuid.uuid4().hex}\n".encode())
  return file.read_text().strip()


def _differences(found: Any, wanted: Any, name: str = ""):
  """Yields a phrase for each leaf in which two JSON values differ."""
  if isinstance(found, dict) and isinstance(wanted, dict):
    for key in sorted(found.keys() | wanted.keys()):
      yield from _differences(
        found.get(key), wanted.get(key), f"{name}.{key}" if name else key
      )
  elif found != wanted:
    yield f"its {name} is {found!r}, not {wanted!r}"


def describe_run(
  experiment: ExperimentConfig, environment_spec: Any
) -> dict[str, Any]:
  """What identifies a run, as JSON can hold it."""
  return describe(
    {
      **experiment.description,
      "seed": experiment.seed,
      "builder": type(experiment.builder).__name__,
      "config": getattr(experiment.builder, "config", None),
      "observation_shape": environment_spec.observations.shape,
      "action_shape": environment_spec.actions.shape,
    }
  )


def describe(value: Any) -> Any:
  """Turns dataclasses, specs and arrays into what JSON can hold."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {
      field.name: describe(getattr(value, field.name))
      for field in dataclasses.fields(value)
    }
  if isinstance(value, Mapping):
    return {str(k): describe(v) for k, v in value.items()}
  if isinstance(value, tuple | list):
    return [describe(v) for v in value]
  if value is None or isinstance(value, bool | int | float | str):
    return value
  # Where a function or an object is in memory does not identify it.
  return _ADDRESS.sub("", str(value))
