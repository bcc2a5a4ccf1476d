"""Folders in the user's home, which not every user has, or can write to."""

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator


def require_writable(folder: pathlib.Path) -> None:
  """Makes a folder; raises OSError unless files can be written there."""
  folder.mkdir(parents=True, exist_ok=True)
  # A user's rights do not say so: root has them on a read-only mount, too.
  with tempfile.TemporaryFile(dir=folder):
    pass


def give_keras_a_folder() -> None:
  """Names a folder for Keras, which comes with Reverb's TensorFlow.

  Where the user has no home, Keras would make a folder `~` in the current one.
  """
  try:
    pathlib.Path.home()
  except RuntimeError:
    # Keras takes this one by itself if the home cannot be written to.
    folder = pathlib.Path(tempfile.gettempdir()) / ".keras"
    os.environ.setdefault("KERAS_HOME", str(folder))


@contextlib.contextmanager
def matplotlib_folder() -> Iterator[None]:
  """A context to load matplotlib in, which wants a folder in the user's home.

  Where that cannot be written to, matplotlib gets a temporary folder, which is
  removed at the end of the context.
  """
  if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ:
    yield
    return
  try:
    for variable, name in (
      ("XDG_CONFIG_HOME", ".config"),
      ("XDG_CACHE_HOME", ".cache"),
    ):
      base = os.environ.get(variable) or pathlib.Path.home() / name
      require_writable(pathlib.Path(base) / "matplotlib")
  except (OSError, RuntimeError):
    with tempfile.TemporaryDirectory() as folder:
      os.environ["MPLCONFIGDIR"] = folder
      try:
        yield
      finally:
        del os.environ["MPLCONFIGDIR"]
    return
  yield
