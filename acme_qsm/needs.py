"""Modules that not every installation has, and what to say without them."""

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import lazy_loader

_OF_RUN = ("dm_env", "matplotlib", "mujoco", "rich", "tensorboard", "tyro")


def load(module: str, what: str) -> Any:
  """Imports a module that not every installation can.

  Args:
    module: its name.
    what: what needs it, for the error's message.

  Returns:
    The module.

  Raises:
    ModuleNotFoundError: if it needs a package that is not there; says what
      needs it, and names the extra that brings it.
  """
  with _naming(what):
    return importlib.import_module(module)


def require(package: str, what: str) -> None:
  """Raises what `load` does unless a package is there; does not load it.

  Args:
    package: its name.
    what: what needs it.
  """
  if importlib.util.find_spec(package) is None:
    raise _missing(package, what)


def attach_stub(
  name: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
  """As lazy_loader's, for a room that not every installation can load.

  Args:
    name: the room's `__name__`.
    file: its `__file__`, beside which is its stub.

  Returns:
    Its `__getattr__`, `__dir__` and `__all__`; the first raises what `load`
    does where a package is not there.
  """
  get, list_names, names = lazy_loader.attach_stub(name, file)

  def getattr_of_room(attribute: str) -> Any:
    with _naming(f"{name}.{attribute}"):
      return get(attribute)

  return getattr_of_room, list_names, names


@contextlib.contextmanager
def _naming(what: str) -> Iterator[None]:
  """A context in which the lack of a package says what needs it."""
  try:
    yield
  except ModuleNotFoundError as error:
    if error.name and error.name.split(".")[0] in ("acme_qsm", "jax"):
      raise
    raise _missing(error.name or "", what) from error


def _missing(package: str, what: str) -> ModuleNotFoundError:
  return ModuleNotFoundError(
    f"{what} needs the package {package!r}: {_remedy(package)}.", name=package
  )


def _remedy(package: str) -> str:
  """What to do where a package is missing."""
  root = package.split(".")[0]
  if root == "dm_control":
    # Pip cannot install a package that it depends on with every Python.
    return "pip install --no-deps dm-control"
  if root in _OF_RUN:
    return "install the extra `run` (in a clone: pip install '.[run]')"
  return (
    "install the extra `acme` (in a clone, uv run launchers/with_acme.py runs "
    "a script where it is; or, on Python 3.10, uv pip install '.[acme]')"
  )
