"""Skips that nobody expects fail a run that says so."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests import skips

ROOT = pathlib.Path(__file__).parents[1]

SKIPPED = "import pytest\n\ndef {name}():\n  pytest.skip('for no reason')\n"


@pytest.fixture
def run_pytest(tmp_path):
  """A function that runs a skipped test of that name, of a project alike."""
  shutil.copy(skips.__file__, tmp_path / "conftest.py")
  (tmp_path / "pytest.ini").touch()
  folder = tmp_path / "tests" / "launchers"
  folder.mkdir(parents=True)

  def run(name, *arguments):
    (folder / "ray_test.py").write_text(SKIPPED.format(name=name))
    return subprocess.run(
      [
        *(sys.executable, "-m", "pytest", "tests/launchers/ray_test.py"),
        *arguments,
      ],
      cwd=tmp_path,
      # Without the options of the run that this is a part of.
      env={**os.environ, "PYTEST_ADDOPTS": ""},
      capture_output=True,
      text=True,
    )

  return run


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unexpected_skip(run_pytest, workers):
  done = run_pytest("test_other", "--strict-skips", "-n", workers)
  assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
  assert "may not be: tests/launchers/ray_test.py::test_other" in done.stdout


def test_an_expected_skip(run_pytest):
  done = run_pytest("test_what_a_run_on_a_cluster_survives", "--strict-skips")
  assert done.returncode == 0, done.stdout
  assert "1 skipped" in done.stdout


def test_by_default_tests_may_be_skipped(run_pytest):
  done = run_pytest("test_other")
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
  "node",
  sorted(skips.MAY_BE_SKIPPED),
)
def test_what_may_be_skipped_exists(node):
  path, _, name = node.partition("::")
  assert f"\ndef {name}(" in (ROOT / path).read_text()
