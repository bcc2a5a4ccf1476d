"""A run's work directory: one run's, checked and claimed before work starts."""

import contextlib
import dataclasses
import fcntl
import json
import pathlib
import re
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import tree

from acme_qsm.experiments.config import CheckpointingConfig
from acme_qsm.experiments.config import ExperimentConfig
from acme_qsm.experiments.records import formats
from acme_qsm.experiments.records.disk import write_atomically

CONFIG_FILE = "config.json"
_ID_FILE = "run_id"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class WorkdirError(ValueError):
  """The work directory cannot hold this run."""


@dataclasses.dataclass(frozen=True)
class Description:
  """What identifies a run, made of what JSON can hold.

  Attributes:
    values: what is written to `config.json`.
    defaults: in its shape, what a value is where the `config.json` of an older
      release does not have it.
  """

  values: Mapping[str, Any]
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_workdir(
  checkpointing: CheckpointingConfig, description: Description
) -> "Workdir":
  """Claims the work directory for a run.

  Args:
    checkpointing: names the directory.
    description: what identifies the run; written to `config.json` there.

  Returns:
    The directory, locked against other processes until closed.

  Raises:
    WorkdirError: if it cannot be read or written to, holds a run of another
      description or of a format that this release does not read, or belongs to
      a process that is still running.
  """
  path = choose_folder(checkpointing)
  with contextlib.ExitStack() as stack:
    try:
      path.mkdir(parents=True, exist_ok=True)
      lock = stack.enter_context(open(path / ".lock", "w"))
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      _claim(path, description)
      run_id = _run_id(path)
    except BlockingIOError as error:
      raise WorkdirError(
        f"The work directory {path} is in use by another process."
      ) from error
    except OSError as error:
      raise WorkdirError(
        f"The work directory {path} cannot be read or written to: {error}."
      ) from error
    return Workdir(path, run_id, stack.pop_all().close)


def choose_folder(checkpointing: CheckpointingConfig) -> pathlib.Path:
  """Where a run's files go: another folder at each call with `add_uid`.

  Raises:
    WorkdirError: if it is in a home that the user does not have.
  """
  try:
    path = pathlib.Path(checkpointing.directory).expanduser().absolute()
  except (OSError, RuntimeError) as error:  # Of a user without a home.
    raise WorkdirError(
      f"There is no work directory {checkpointing.directory}: {error}"
    ) from error
  return path / uuid.uuid4().hex[:12] if checkpointing.add_uid else path


@dataclasses.dataclass(frozen=True)
class Workdir:
  """A locked work directory.

  Attributes:
    path: where it is.
    run_id: tells its run from any other, also from one just like it.
    close: unlocks it.
  """

  path: pathlib.Path
  run_id: str
  close: Callable[[], None]


def _claim(path: pathlib.Path, description: Description) -> None:
  """Finds this run in a folder, or nothing, and writes its configuration."""
  config_path = path / CONFIG_FILE
  wanted = describe(description.values)
  found = None
  try:
    found = _parse_config(config_path)
  except FileNotFoundError:
    _require_no_files(path)
  else:
    _require_same(path, found, wanted, description.defaults)
  if found != wanted:
    content = json.dumps({**formats.header(), **wanted}, indent=2)
    write_atomically(config_path, f"{content}\n".encode())


def _parse_config(config_path: pathlib.Path) -> dict[str, Any]:
  """What a run's configuration says, but for its `formats.header`."""
  try:
    found = json.loads(config_path.read_text())
  except json.JSONDecodeError as error:
    raise WorkdirError(f"{config_path} is not JSON: {error}.") from error
  if not isinstance(found, dict):
    raise WorkdirError(f"{config_path} describes no run.")
  refusal = formats.refusal(str(config_path), found)
  if refusal is not None:
    raise WorkdirError(refusal)
  return {key: found[key] for key in found if key not in formats.header()}


def _require_same(
  path: pathlib.Path,
  found: Mapping[str, Any],
  wanted: Mapping[str, Any],
  defaults: Mapping[str, Any],
) -> None:
  """Raises WorkdirError, which says in what, if it is another run's."""
  if found.get("agent") != wanted.get("agent"):
    # Their configurations have little in common.
    found = {key: found[key] for key in found if key != "config"}
    wanted = {key: wanted[key] for key in wanted if key != "config"}
  differences = list(_differences(found, wanted, defaults))
  if differences:
    raise WorkdirError(
      f"The work directory {path} holds another run: "
      + "; ".join(differences)
      + ". Choose another work directory, or the run's own settings."
    )


def _require_no_files(path: pathlib.Path) -> None:
  others = [p.name for p in path.iterdir() if p.name != ".lock"]
  if others:
    raise WorkdirError(
      f"The work directory {path} holds no run but other files "
      f"({', '.join(sorted(others)[:3])}); choose an empty or new one."
    )


def _run_id(path: pathlib.Path) -> str:
  file = path / _ID_FILE
  if not file.exists():
    write_atomically(file, f"{uuid.uuid4().hex}\n".encode())
  return file.read_text().strip()


def _differences(
  found: Mapping[str, Any],
  wanted: Mapping[str, Any],
  defaults: Mapping[str, Any],
  prefix: str = "",
) -> Iterator[str]:
  """Yields a phrase for each value in which two descriptions differ."""
  for key in sorted(found.keys() | wanted.keys()):
    name = prefix + key
    default = defaults.get(key)
    if key not in wanted:
      yield (
        f"its {name} is {found[key]!r}, a setting that this release does not "
        "know: go on with the release that wrote it"
      )
      continue
    value = found.get(key, describe(default))
    if isinstance(value, dict) and isinstance(wanted[key], dict):
      nested = default if isinstance(default, Mapping) else {}
      yield from _differences(value, wanted[key], nested, f"{name}.")
    elif value != wanted[key]:
      yield f"its {name} is {value!r}, not {wanted[key]!r}"


def describe_run(
  experiment: ExperimentConfig, environment_spec: Any
) -> Description:
  """What identifies a run, as JSON can hold it."""
  # The coordinator of a run, which is told this, does without JAX.
  from acme_qsm.experiments import seeds

  builder = experiment.builder
  config = getattr(builder, "config", None)
  values = {
    **experiment.description,
    "seed": experiment.seed,
    "random_numbers": seeds.describe_generator(),
    "agent": getattr(builder, "agent", type(builder).__name__),
    "config": config,
    "observation_shape": _shapes(environment_spec.observations),
    "action_shape": _shapes(environment_spec.actions),
  }
  return Description(describe(values), {"config": describe(_defaults(config))})


def _shapes(nest: Any) -> Any:
  """The shapes of specs, which may be nested."""
  return tree.map_structure(lambda spec: spec.shape, nest)


def _defaults(value: Any) -> Any:
  """The defaults of all dataclasses in a value, by name and as deep as it."""
  if isinstance(value, Mapping):
    return {key: _defaults(item) for key, item in value.items()}
  if not dataclasses.is_dataclass(value) or isinstance(value, type):
    return {}
  found = {}
  for field in dataclasses.fields(value):
    if field.default is not dataclasses.MISSING:
      found[field.name] = field.default
    elif field.default_factory is not dataclasses.MISSING:
      found[field.name] = field.default_factory()
  return found


def describe(value: Any) -> Any:
  """Turns dataclasses, specs and arrays into what JSON can hold."""
  return json.loads(json.dumps(value, default=_encode))


def _encode(value: Any) -> Any:
  """What `json` is to take for a value that it does not know."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names}
  if isinstance(value, Mapping):
    return dict(value)
  # Where a function or an object is in memory does not identify it.
  return _ADDRESS.sub("", str(value))
