"""Writes BUILD: one target per source file, with its real dependencies.

python tests/generate_build.py
"""

import ast
import dataclasses
import pathlib
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]

HEADER = """\
load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])
"""


@dataclasses.dataclass(frozen=True)
class Target:
  """A py_library, py_binary or py_test; `text` is how BUILD says it."""

  rule: str
  name: str
  attributes: Sequence[tuple[str, object]]

  @property
  def text(self) -> str:
    lines = [f"{self.rule}(", f'    name = "{self.name}",']
    for key, value in self.attributes:
      if isinstance(value, tuple):
        items = [f'"{item}"' for item in value]
        if len(items) > 1:
          items = ["", *(f"        {item}," for item in items), "    "]
        lines.append(f"    {key} = [" + "\n".join(items) + "],")
      elif isinstance(value, str):
        lines.append(f'    {key} = "{value}",')
      else:
        lines.append(f"    {key} = {value},")
    return "\n".join([*lines, ")"])


def list_sources(root: pathlib.Path) -> list[str]:
  return sorted(
    path.relative_to(root).as_posix()
    for folder in ("acme_qsm", "launchers", "tests")
    for path in (root / folder).rglob("*.py")
  )


def make_name(source: str) -> str:
  """acme_qsm/a/b.py is a_b, a package's __init__.py the package itself."""
  parts = list(pathlib.PurePosixPath(source).with_suffix("").parts)
  if parts[-1] == "__init__":
    parts.pop()
  if parts[0] == "acme_qsm" and len(parts) > 1:
    parts = parts[1:]
  return "_".join(parts)


def make_module(source: str) -> str:
  module = source.removesuffix(".py").removesuffix("/__init__")
  return module.replace("/", ".")


def find_imports(source: str, root: pathlib.Path) -> set[str]:
  """The files of the repository that a file imports."""
  modules = {make_module(other): other for other in list_sources(root)}
  found = set()
  for node in ast.walk(ast.parse((root / source).read_text())):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{source} imports relatively"
      for alias in node.names:
        submodule = f"{node.module}.{alias.name}"
        found.add(submodule if submodule in modules else node.module)
    elif isinstance(node, ast.Constant) and "." in str(node.value):
      # The name of a module that is imported when first needed.
      found.add(node.value)
  return {modules[name] for name in found if name in modules} - {source}


def make_target(source: str, root: pathlib.Path) -> Target:
  path = pathlib.PurePosixPath(source)
  imports = find_imports(source, root)
  attributes: list[tuple[str, object]] = [("srcs", (source,))]
  if path.parts[0] == "launchers" and path.name != "__init__.py":
    rule = "py_binary"
    attributes.append(("main", source))
  elif path.name.endswith("_test.py"):
    rule = "py_test"
    attributes += [("args", (source,)), ("main_module", "pytest")]
    # Fixtures come without an import.
    imports.update(
      other
      for other in list_sources(root)
      if other.endswith("conftest.py")
      and path.is_relative_to(pathlib.PurePosixPath(other).parent)
    )
  else:
    rule = "py_library"
    if path.parts[0] == "tests":
      attributes.append(("testonly", True))
  deps = tuple(sorted(f":{make_name(other)}" for other in imports))
  if deps:
    attributes.append(("deps", deps))
  return Target(rule, make_name(source), tuple(sorted(attributes, key=_order)))


def _order(attribute: tuple[str, object]) -> int:
  """Buildifier's order."""
  keys = ("testonly", "srcs", "args", "main", "main_module", "deps")
  return keys.index(attribute[0])


def make_build(root: pathlib.Path) -> str:
  """What BUILD should hold."""
  targets = [make_target(source, root) for source in list_sources(root)]
  return "\n\n".join([HEADER.rstrip(), *(t.text for t in targets)]) + "\n"


if __name__ == "__main__":
  (ROOT / "BUILD").write_text(make_build(ROOT))
