"""Modules that are loaded when first needed."""

import importlib
import importlib.util
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

_OF_RUN = ("dm_env", "matplotlib", "mujoco", "rich", "tensorboard", "tyro")


def load(module: str, what: str) -> Any:
  """Imports a module that not every installation can.

  Args:
    module: its name.
    what: what needs it, to be told to who cannot have it.

  Returns:
    The module.

  Raises:
    ModuleNotFoundError: if it needs a package that is not there; says what
      needs it, and names the extra that brings it.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    if error.name and error.name.split(".")[0] in ("acme_qsm", "jax"):
      raise
    raise _missing(error.name or "", what) from error


def require(package: str, what: str) -> None:
  """Raises what `load` does unless a package is there; does not load it.

  Args:
    package: its name.
    what: what needs it.
  """
  if importlib.util.find_spec(package) is None:
    raise _missing(package, what)


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


def attach(
  package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
  """Makes a package's `__getattr__` and `__dir__`.

  So that who needs one part of a package does not wait for the others to load,
  and needs none of what they need.

  Args:
    package: the package's name.
    modules: by each name, the module that defines it, or that it names: which,
      tells the last part of the module's own name.

  Returns:
    `__getattr__` and `__dir__`, to be assigned in the package; they load as
    `load` does.
  """

  def get(name: str) -> Any:
    if name not in modules:
      raise AttributeError(f"module {package!r} has no attribute {name!r}")
    module = load(modules[name], f"{package}.{name}")
    if modules[name].rpartition(".")[2] == name:
      return module
    return getattr(module, name)

  return get, lambda: sorted(modules)
