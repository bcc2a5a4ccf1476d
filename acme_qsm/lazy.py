"""Package names that are loaded when first touched."""

import importlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any


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
    `__getattr__` and `__dir__`, to be assigned in the package. A module that
    cannot be found is reported with the extra that brings it.
  """

  def get(name: str) -> Any:
    if name not in modules:
      raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
      module = importlib.import_module(modules[name])
    except ModuleNotFoundError as error:
      if error.name and error.name.split(".")[0] in ("acme_qsm", "jax"):
        raise
      raise ModuleNotFoundError(
        f"{package}.{name} needs the package {error.name!r}: install the extra "
        "`acme` (in a clone, on Python 3.10: uv pip install '.[acme]').",
        name=error.name,
      ) from error
    if modules[name].rpartition(".")[2] == name:
      return module
    return getattr(module, name)

  return get, lambda: sorted(modules)
