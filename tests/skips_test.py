"""Skips that nobody expects fail a run that says so."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests import skips

ROOT = pathlib.Path(__file__).parents[1]

EXPECTED = "test_what_a_run_on_a_cluster_survives"
SKIPPED = f"""
import pytest

def {EXPECTED}():
  pytest.skip("for no reason")

def test_other():
  pytest.skip("for no reason")
"""


@pytest.fixture
def run_pytest(tmp_path):
  """A function that runs those skipped tests, of a project alike."""
  shutil.copy(skips.__file__, tmp_path / "conftest.py")
  (tmp_path / "pytest.ini").touch()
  folder = tmp_path / "tests" / "launchers"
  folder.mkdir(parents=True)
  (folder / "ray_test.py").write_text(SKIPPED)

  def run(*arguments):
    return subprocess.run(
      [sys.executable, "-m", "pytest", "tests/launchers", *arguments],
      cwd=tmp_path,
      # Without the options of the run that this is a part of.
      env={**os.environ, "PYTEST_ADDOPTS": ""},
      capture_output=True,
      text=True,
    )

  return run


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unexpected_skip(run_pytest, workers):
  done = run_pytest("--strict-skips", "-n", workers)
  assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
  assert "may not be: tests/launchers/ray_test.py::test_other" in done.stdout
  assert "2 skipped" in done.stdout
  assert f"::{EXPECTED}" not in done.stdout


def test_skips_that_are_expected_or_not_asked_about(run_pytest):
  for arguments in (["--strict-skips", "-k", EXPECTED], []):
    done = run_pytest(*arguments)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("node", skips.MAY_BE_SKIPPED)
def test_what_may_be_skipped_exists(node):
  path, _, name = node.partition("::")
  assert f"\ndef {name}(" in (ROOT / path).read_text()
