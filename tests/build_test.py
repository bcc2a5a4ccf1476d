"""BUILD holds what `python tests/generate_build.py` writes."""

import pathlib

from tests import generate_build

ROOT = generate_build.ROOT
HEADER = generate_build.HEADER


def test_build_is_what_its_generator_writes():
  assert (ROOT / "BUILD").read_text() == generate_build.make_build(ROOT), (
    "BUILD is not up to date: run `uv run python tests/generate_build.py`."
  )


def test_build_is_the_only_one():
  found = [
    path.relative_to(ROOT).as_posix()
    for folder in ("acme_qsm", "launchers", "tests")
    for path in (ROOT / folder).rglob("BUILD*")
  ]
  assert not found


def test_names_are_unique():
  names = [
    generate_build.make_name(source)
    for source in generate_build.list_sources(ROOT)
  ]
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
  expected = expected.replace(")\npy_", ")\n\npy_")
  assert generate_build.make_build(tmp_path) == f"{HEADER}{expected}\n"
  # It sees what has changed since.
  write_tree(tmp_path, acme_qsm__a="import acme_qsm.c", acme_qsm__c="")
  (tmp_path / "launchers" / "run.py").unlink()
  changed = generate_build.make_build(tmp_path)
  assert "launchers_run" not in changed
  assert 'deps = [":c"]' in changed
  assert 'srcs = ["acme_qsm/c.py"]' in changed
