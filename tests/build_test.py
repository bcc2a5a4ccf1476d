"""Keeps BUILD complete: one target per source file, with its real deps.

`python tests/build_test.py` prints what BUILD should hold.
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


def read_targets(build: str) -> list[Target]:
  """The targets of a BUILD file, which is valid Python syntax."""
  targets = []
  for statement in ast.parse(build).body:
    call = statement.value if isinstance(statement, ast.Expr) else None
    assert isinstance(call, ast.Call), ast.unparse(statement)
    assert isinstance(call.func, ast.Name), ast.unparse(statement)
    if call.func.id.startswith("py_"):
      attributes = {
        str(keyword.arg): ast.literal_eval(keyword.value)
        for keyword in call.keywords
      }
      name = attributes.pop("name")
      targets.append(
        Target(
          call.func.id,
          name,
          tuple(
            (key, tuple(value) if isinstance(value, list) else value)
            for key, value in attributes.items()
          ),
        )
      )
  return targets


def find_problems(root: pathlib.Path) -> list[str]:
  """What to change in BUILD, ready to paste; nothing where all is well."""
  targets = read_targets((root / "BUILD").read_text())
  expected = [make_target(source, root) for source in list_sources(root)]
  problems = []
  for target in targets:
    sources = dict(target.attributes)["srcs"]
    if targets.count(target) > 1 or target.name not in {
      other.name for other in expected
    }:
      problems.append(f"# Remove {target.name} of {sources}.")
  by_name = {target.name: target for target in targets}
  for target in expected:
    if target != by_name.get(target.name):
      verb = "Replace" if target.name in by_name else "Add"
      problems.append(f"# {verb}:\n{target.text}")
  return problems


def test_build_is_complete():
  problems = find_problems(ROOT)
  assert not problems, "BUILD must change:\n\n" + "\n\n".join(problems)


def test_build_is_the_only_one():
  found = [
    path.relative_to(ROOT).as_posix()
    for folder in ("acme_qsm", "launchers", "tests")
    for path in (ROOT / folder).rglob("BUILD*")
  ]
  assert not found


def test_names_are_unique():
  names = [target.name for target in read_targets((ROOT / "BUILD").read_text())]
  assert len(set(names)) == len(names)


def write_tree(root: pathlib.Path, **files: str):
  for name, text in files.items():
    path = root / name.replace("__", "/").replace("init", "__init__")
    path = path.with_suffix("" if name == "BUILD" else ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_targets_of_a_small_tree(tmp_path):
  write_tree(
    tmp_path,
    acme_qsm__init='from acme_qsm.a import A\nLAZY = "acme_qsm.x.b"\n',
    acme_qsm__a="import jax\n",
    acme_qsm__x__b="def f():\n  from acme_qsm import a\n",
    launchers__run="import acme_qsm\nfrom acme_qsm.x import b\n",
    tests__conftest="",
    tests__core__a_test="import acme_qsm.a\n",
  )
  texts = [
    make_target(source, tmp_path).text for source in list_sources(tmp_path)
  ]
  expected = """
py_library(
    name = "acme_qsm",
    srcs = ["acme_qsm/__init__.py"],
    deps = [
        ":a",
        ":x_b",
    ],
)
py_library(
    name = "a",
    srcs = ["acme_qsm/a.py"],
)
py_library(
    name = "x_b",
    srcs = ["acme_qsm/x/b.py"],
    deps = [":a"],
)
py_binary(
    name = "launchers_run",
    srcs = ["launchers/run.py"],
    main = "launchers/run.py",
    deps = [
        ":acme_qsm",
        ":x_b",
    ],
)
py_library(
    name = "tests_conftest",
    testonly = True,
    srcs = ["tests/conftest.py"],
)
py_test(
    name = "tests_core_a_test",
    srcs = ["tests/core/a_test.py"],
    args = ["tests/core/a_test.py"],
    main_module = "pytest",
    deps = [
        ":a",
        ":tests_conftest",
    ],
)"""
  assert "\n".join(texts) == expected.lstrip()
  # What it prints is what it accepts, and it sees what has changed since.
  write_tree(tmp_path, BUILD=HEADER + "\n\n".join(texts))
  assert find_problems(tmp_path) == []
  write_tree(tmp_path, acme_qsm__a="import acme_qsm.c", acme_qsm__c="")
  (tmp_path / "launchers" / "run.py").unlink()
  removed, replaced, added = find_problems(tmp_path)
  assert "Remove launchers_run" in removed
  assert "# Replace:" in replaced
  assert 'deps = [":c"]' in replaced
  assert "# Add:" in added
  assert 'srcs = ["acme_qsm/c.py"]' in added


if __name__ == "__main__":
  print(HEADER)
  print(
    "\n\n".join(make_target(source, ROOT).text for source in list_sources(ROOT))
  )
