"""BUILD covers every file, and its targets may see what they import.

BUILD's language reads as Python: stand-ins for its rules note the targets.
"""

import ast
import collections
import dataclasses
import functools
import pathlib
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("acme_qsm", "launchers", "tests")
SOURCES = frozenset(
  path.relative_to(ROOT).as_posix()
  for folder in FOLDERS
  for path in (ROOT / folder).rglob("*.py")
)


@dataclasses.dataclass(frozen=True)
class Target:
  """A rule of BUILD, as it was called."""

  rule: str
  name: str
  srcs: Sequence[str] = ()
  deps: Sequence[str] = ()
  data: Sequence[str] = ()
  main: str | None = None
  main_module: str | None = None
  args: Sequence[str] = ()
  size: str | None = None
  testonly: bool = False


def glob(include: Sequence[str], exclude: Sequence[str] = ()) -> list[str]:
  def find(patterns: Sequence[str]) -> set[str]:
    return {
      path.relative_to(ROOT).as_posix()
      for pattern in patterns
      for path in ROOT.glob(pattern)
    }

  found = sorted(
    path for path in find(include) - find(exclude) if (ROOT / path).is_file()
  )
  assert found, f"{include} finds nothing"
  return found


def read_targets() -> dict[str, Target]:
  found: dict[str, Target] = {}

  def make_rule(rule: str):
    def note(**attributes: Any):
      target = Target(rule, **attributes)
      assert target.name not in found
      found[target.name] = target

    return note

  names: dict[str, Any] = {"glob": glob}
  for rule in ("filegroup", "py_binary", "py_library", "py_test"):
    names[rule] = make_rule(rule)
  names |= dict.fromkeys(("load", "package"), lambda *_, **__: None)
  exec((ROOT / "BUILD").read_text(), names)
  return found


TARGETS = read_targets()


def reach(target: Target, on_the_way: Sequence[str] = ()) -> set[str]:
  """The files that a target and those under it hold."""
  assert target.name not in on_the_way, f"A circle: {on_the_way}"
  found = set(target.srcs)
  for dep in target.deps:
    found |= reach(TARGETS[dep.removeprefix(":")], (*on_the_way, target.name))
  return found


@functools.cache
def find_imports(source: str) -> set[str]:
  """The files of the repository that a file imports."""
  names = set()
  nodes: list[ast.AST] = [ast.parse((ROOT / source).read_text())]
  while nodes:
    node = nodes.pop()
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
      continue  # Packages name there what they load when first asked for it.
    nodes.extend(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      names.update(f"{node.module}.{alias.name}" for alias in node.names)
      names.add(str(node.module))
  paths = {name.replace(".", "/") for name in names}
  return {
    path
    for base in paths
    for path in (f"{base}.py", f"{base}/__init__.py")
    # The top package loads its rooms when first asked for what is theirs.
    if path in SOURCES and path != "acme_qsm/__init__.py"
  }


def test_every_file_is_in_one_library():
  count = collections.Counter(
    source
    for target in TARGETS.values()
    if target.rule == "py_library"
    for source in target.srcs
  )
  assert set(count) == SOURCES
  assert set(count.values()) == {1}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_target_reaches_what_it_imports(target: Target):
  reached = reach(target)
  missing = {
    f"{source} -> {found}"
    for source in target.srcs
    if source in SOURCES
    for found in find_imports(source) - reached
  }
  assert not missing


def test_scripts_and_tests_run_the_file_that_they_hold():
  for target in TARGETS.values():
    if target.rule == "py_binary":
      assert [target.main] == list(target.srcs)
    elif target.rule == "py_test":
      assert target.main_module == "pytest"
      assert list(target.args) == list(target.srcs)


def test_build_is_the_only_one():
  assert not [
    path for folder in FOLDERS for path in (ROOT / folder).rglob("BUILD*")
  ]


if shutil.which("bazel"):

  def test_bazel_reads_it(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*"))
    (copy / "MODULE.bazel").write_text(
      'bazel_dep(name = "rules_python", version = "1.3.0")\n'
    )
    query = subprocess.run(
      ["bazel", f"--output_user_root={tmp_path / 'root'}", "query", "//..."],
      cwd=copy,
      capture_output=True,
      text=True,
      check=True,
    )
    assert {f"//:{name}" for name in TARGETS} <= set(query.stdout.split())
