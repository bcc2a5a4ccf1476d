"""Atomic checkpoints: plain arrays and JSON, so that loading runs no code."""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acme_qsm.experiments.records import disk
from acme_qsm.experiments.records import formats
from acme_qsm.experiments.records.disk import CheckpointError
from acme_qsm.experiments.records.disk import UnreadableError

_METADATA = "metadata.json"
_TEMPORARY_PREFIX = ".tmp_"
# A step that is saved again gets the next revision: a folder cannot be replaced
# atomically, and there must be a whole checkpoint at every moment.
_NAME = re.compile(r"step_(\d{12,})(?:-(\d+))?")
# What the file system says of what is not there. Whatever else it says, such as
# that a disk or a server does not answer, may be over when it is asked again.
_MISSING = (FileNotFoundError, NotADirectoryError)


class Checkpoint:
  """A checkpoint on disk whose content has been verified.

  Attributes:
    path: its folder.
    step: the step at which it was saved.
    metadata: the metadata that was saved with it.
  """

  def __init__(self, path: Path):
    """Verifies the checkpoint in a folder.

    Args:
      path: a folder that `Checkpointer.save` wrote.

    Raises:
      UnreadableError: if it is of a format that this release does not read, or
        the file system gives another reason than that a file is missing.
      CheckpointError: says what is missing or damaged.
    """
    try:
      content = json.loads((path / _METADATA).read_bytes())
      refusal = formats.refusal(str(path), content)
      if refusal is not None:
        raise UnreadableError(refusal)
      self.path = path
      self.step: int = content["step"]
      self.metadata: dict[str, Any] = content["metadata"]
      if _parse_name(path)[0] != self.step:
        raise CheckpointError(f"{path} says that it is of step {self.step}.")
      for name, expected in content["manifest"].items():
        found = _describe_file(path / name)
        if found != expected:
          raise CheckpointError(
            f"{path / name} is damaged: {found} instead of {expected}."
          )
    except (
      *_MISSING,
      *(ValueError, KeyError, TypeError, AttributeError),
    ) as error:
      reason = f"{type(error).__name__}: {error}"
      raise CheckpointError(f"{path} is incomplete: {reason}.") from error
    except OSError as error:
      raise UnreadableError(
        f"{path} cannot be read, and stays as it is: {error}."
      ) from error

  def load(self, item: str, template: Any) -> Any:
    """Loads one item.

    Args:
      item: the name under which it was saved.
      template: a tree of the saved structure, whose leaves give the types,
        shapes and dtypes: jax arrays (or `jax.ShapeDtypeStruct`s), typed PRNG
        keys, numpy arrays and Python numbers. Its values are not used.

    Returns:
      A tree like template with the saved values.

    Raises:
      UnreadableError: if its file cannot be read now.
      CheckpointError: if the item is not in the checkpoint, or a leaf of it
        differs from the template's.
    """
    # The coordinator of a run, which loads no trees, does without JAX.
    import jax

    from acme_qsm.experiments.records import leaves

    path = self.path / f"{item}.npz"
    wanted, structure = jax.tree_util.tree_flatten_with_path(template)
    name, what, restored = "", str(path), []
    try:
      with np.load(path, allow_pickle=False) as found:
        others = set(found)
        for key_path, leaf in wanted:
          name = jax.tree_util.keystr(key_path)
          what = f"Leaf {name!r} of {path}"
          restored.append(leaves.restore(found[name], leaf))
          others.remove(name)
    except _MISSING as error:
      raise CheckpointError(f"{self.path} holds no item {item!r}.") from error
    except OSError as error:
      raise UnreadableError(f"{what} cannot be read: {error}.") from error
    except KeyError as error:
      raise CheckpointError(f"{path} holds no leaf {name!r}.") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
      raise CheckpointError(f"{what}: {error}") from error
    if others:
      raise CheckpointError(
        f"{path} holds a leaf that the template lacks: {min(others)!r}."
      )
    return jax.tree_util.tree_unflatten(structure, restored)


class Checkpointer:
  """Saves checkpoints in a directory, one writer at a time.

  A checkpoint is the folder `step_<step>` with one `<item>.npz` per item and a
  `metadata.json` that lists every file's size and hash. It appears under that
  name when all of it is on disk.
  """

  def __init__(self, directory: str | os.PathLike[str], max_to_keep: int = 1):
    """Initialises the checkpointer; writes nothing.

    Args:
      directory: where the checkpoints are.
      max_to_keep: checkpoints kept, positive.

    Raises:
      ValueError: if max_to_keep is not positive.
    """
    if max_to_keep < 1:
      raise ValueError(f"max_to_keep must be positive, got {max_to_keep}.")
    self._directory = Path(directory)
    self._max_to_keep = max_to_keep
    # What `latest` has found broken: it counts for nothing from then on.
    self._broken: set[Path] = set()

  def save(
    self,
    step: int,
    items: Mapping[str, Any],
    metadata: Mapping[str, Any],
    write_extra: Callable[[Path, Path | None], None] | None = None,
  ) -> Path:
    """Saves a checkpoint and removes those that it makes superfluous.

    Checkpoints of later steps go too: what is saved is the run's present, and
    those were left behind when it went on from an earlier one.

    Args:
      step: the run's step, at least 0.
      items: trees of arrays, typed PRNG keys and numbers, by names made of
        letters, digits and underscores.
      metadata: what JSON can hold.
      write_extra: (folder, previous) puts more files or folders into the new
        folder. They become part of the checkpoint. Of the previous one's folder
        (None at first) it may link files that have not changed, under the same
        names: they are not read again.

    Returns:
      The checkpoint's folder.

    Raises:
      NonFiniteError: if a leaf holds a NaN or an infinity.
      TypeError: if a leaf is no array of numbers.
      ValueError: if step or an item's name is not valid, or JSON cannot hold
        the metadata.
      OSError: if writing fails. Here, as for all errors, earlier checkpoints
        stay as they were.
    """
    from acme_qsm.experiments.records import leaves

    if step < 0:
      raise ValueError(f"step must be at least 0, got {step}.")
    arrays = {
      name: leaves.to_arrays(name, tree) for name, tree in items.items()
    }
    content = {
      **formats.header(),
      **{"step": int(step), "metadata": dict(metadata), "manifest": {}},
    }
    json.dumps(content, allow_nan=False)  # Fails here rather than halfway.

    self._directory.mkdir(parents=True, exist_ok=True)
    # What a killed process left may be what fills the disk.
    self._remove_temporaries()
    found = self._find()
    previous = next((p for p in found[::-1] if p not in self._broken), None)
    path = self._directory / _free_name(step, found)
    temporary = path.with_name(f"{_TEMPORARY_PREFIX}{path.name}")
    try:
      temporary.mkdir()
      for item, item_arrays in arrays.items():
        # In memory first: a zip file on a full disk fails again when collected.
        buffer = io.BytesIO()
        np.savez(buffer, **item_arrays)
        (temporary / f"{item}.npz").write_bytes(buffer.getbuffer())
      if write_extra is not None:
        write_extra(temporary, previous)
      content["manifest"] = _describe_files(temporary, previous)
      (temporary / _METADATA).write_text(json.dumps(content, indent=2))
      for each in (*temporary.rglob("*"), temporary):
        disk.sync(each)
      temporary.rename(path)
    except BaseException:
      shutil.rmtree(temporary, ignore_errors=True)
      raise
    disk.sync(self._directory)
    self._prune(path)
    return path

  def latest(self) -> Checkpoint | None:
    """Finds the newest whole checkpoint.

    Broken ones are skipped, with a warning.

    Returns:
      The checkpoint, or None if the directory holds none at all.

    Raises:
      UnreadableError: if the directory or a checkpoint cannot be read now, or
        one is of a format that this release does not read. It may be whole: a
        run that went on from an older one would delete it.
      CheckpointError: if there are checkpoints but all of them are broken.
    """
    problems = []
    try:
      found = self._find()
    except OSError as error:
      raise UnreadableError(
        f"{self._directory} cannot be read: {error}."
      ) from error
    for path in reversed(found):
      try:
        return Checkpoint(path)
      except UnreadableError:
        raise
      except CheckpointError as error:
        logging.warning("Skipping the broken checkpoint %s: %s", path, error)
        self._broken.add(path)
        problems.append(str(error))
    if problems:
      raise CheckpointError(
        f"No checkpoint in {self._directory} can be used: " + " ".join(problems)
      )
    return None

  def _find(self) -> list[Path]:
    """Lists the checkpoints' folders, oldest first."""
    try:
      names = os.listdir(self._directory)
    except FileNotFoundError:
      return []
    paths = [self._directory / name for name in names if _NAME.fullmatch(name)]
    return sorted(paths, key=_parse_name)

  def _prune(self, newest: Path) -> None:
    """Removes what is not among the last max_to_keep steps up to newest."""
    try:
      found = self._find()
      # By step: the revision saved last stands for it.
      kept = {
        _parse_name(path)[0]: path
        for path in found
        if path not in self._broken and _parse_name(path) <= _parse_name(newest)
      }
      for path in set(found) - set([*kept.values()][-self._max_to_keep :]):
        # Hidden first: removal takes time, and a half would look broken.
        path.rename(path.with_name(f"{_TEMPORARY_PREFIX}old_{path.name}"))
      self._remove_temporaries()
    except OSError as error:
      # The new checkpoint is safe, which is what the caller wants to know.
      logging.warning("Cannot remove an old checkpoint: %s", error)

  def _remove_temporaries(self) -> None:
    for path in self._directory.glob(f"{_TEMPORARY_PREFIX}*"):
      shutil.rmtree(path)


def _parse_name(path: Path) -> tuple[int, int]:
  """Returns the step and the revision in a checkpoint's name."""
  match = _NAME.fullmatch(path.name)
  if match is None:
    raise ValueError(f"{path.name!r} is not the name of a checkpoint")
  return int(match[1]), int(match[2] or 0)


def _free_name(step: int, found: Sequence[Path]) -> str:
  """A checkpoint's name that none of those found has."""
  revisions = [
    revision for other, revision in map(_parse_name, found) if other == step
  ]
  suffix = f"-{max(revisions) + 1}" if revisions else ""
  return f"step_{step:012d}{suffix}"


def _describe_file(path: Path) -> dict[str, Any]:
  """Returns a file's entry in the manifest."""
  digest = hashlib.sha256()
  size = 0
  with path.open("rb") as file:
    while chunk := file.read(1 << 20):
      digest.update(chunk)
      size += len(chunk)
  return {"size": size, "sha256": digest.hexdigest()}


def _describe_files(folder: Path, previous: Path | None) -> dict[str, Any]:
  """Returns the manifest of a folder.

  Files that are links to those of the previous checkpoint have the entries that
  they have there: a file that has gone bad since is not taken for good.

  Raises OSError where it cannot be told whether that one is whole.
  """
  known: dict[str, Any] = {}
  if previous is not None:
    try:
      manifest = json.loads((previous / _METADATA).read_bytes())["manifest"]
      known = {
        name: entry
        for name, entry in manifest.items()
        if (folder / name).is_file()
        and (previous / name).samefile(folder / name)
      }
    except (*_MISSING, ValueError, KeyError, TypeError, AttributeError):
      pass  # It is broken; what is linked all the same is read.
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  names = [path.relative_to(folder).as_posix() for path in files]
  return {
    name: known.get(name) or _describe_file(folder / name) for name in names
  }
