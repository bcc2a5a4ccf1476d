"""The tests' own command, and what runs in which environment."""

import pathlib
import subprocess
import sys

import pytest

from tests import run
from tests import selection

TESTS = pathlib.Path(__file__).parent


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ([], ([], "not slow")),
    (["-n", "0", "-m", "slow", "-x"], (["-n", "0", "-x"], "slow")),
    (["-m", ""], ([], "")),
    (["-mslow", "--maxfail=1"], (["--maxfail=1"], "slow")),
  ],
)
def test_marks_are_taken_out_of_the_arguments(arguments, expected):
  assert run.split(arguments) == expected


def test_modules_that_need_acme_are_not_asked_for_without_it():
  acmes = "tests/agents/compat_test.py"
  other = "tests/replay/addresses_test.py::test_there_and_back"
  assert run.without_acmes(["-k", "x", acmes, other]) == ["-k", "x", other]
  assert run.without_acmes([f"{acmes}::test_x"]) is None
  assert run.without_acmes(["-x"]) == ["-x"]


def test_modules_that_need_acme_say_so():
  assert selection.needs_acme(TESTS / "agents" / "builder_test.py")
  assert not selection.needs_acme(TESTS / "agents" / "actor_test.py")
  assert not selection.needs_acme(TESTS / "agents" / "no_such_test.py")
  assert not selection.needs_acme(TESTS)


@pytest.mark.parametrize(
  ("outputs", "expected"),
  [
    (
      ["..\n2 passed, 1 warning in 0.10s", "F\n1 failed, 3 passed in 61.00s\n"],
      "1 failed, 5 passed, 1 warnings in 7.50s",
    ),
    (
      ["\x1b[32m\x1b[1m1 passed\x1b[0m\x1b[32m in 1.00s\x1b[0m"],
      "1 passed in 7.50s",
    ),
    (["2 passed in 1s", "no tests ran in 0.03s"], "2 passed in 7.50s"),
    (["no tests ran in 0.03s"], "no tests ran in 7.50s"),
    # Killed.
    (["3 passed in 1.00s", "...."], "3 passed, 1 errors in 7.50s"),
    (["= 1 skipped, 2 errors in 90.0s (0:01:30) ="], "2 errors, 1 skipped"),
  ],
)
def test_closing_lines_are_added_up(outputs, expected):
  assert run.add_up(outputs, 7.5).startswith(expected)


def test_without_acme_what_is_marked_is_not_even_loaded(tmp_path):
  (tmp_path / "conftest.py").write_text(
    "from tests import selection\n"
    "selection._HAS_ACME = False\n"
    "from tests.selection import *\n"
  )
  (tmp_path / "all_test.py").write_text(
    "import no_such_module\nimport pytest\npytestmark = pytest.mark.acme\n"
  )
  (tmp_path / "some_test.py").write_text(
    "import pytest\n"
    "@pytest.mark.acme\ndef test_acme(): assert False\n"
    "two = pytest.param(2, marks=pytest.mark.acme)\n"
    "@pytest.mark.parametrize('x', [1, two])\n"
    "def test_one(x): assert x == 1\n"
  )
  flags = ["-q", "-o", "python_files=*_test.py", "-o", "timeout=60"]

  def collect():
    done = subprocess.run(
      [sys.executable, "-m", "pytest", *flags, "--rootdir", tmp_path, tmp_path],
      env={"PYTHONPATH": str(TESTS.parent), "PATH": ""},
      capture_output=True,
      text=True,
    )
    return done.returncode, done.stdout

  code, output = collect()
  assert code == 0, output
  assert "1 passed, 2 deselected" in output
  # One that lacks the mark is not lost.
  (tmp_path / "more_test.py").write_text("import no_such_module\n")
  code, output = collect()
  assert code != 0
  assert "No module named 'no_such_module'" in output
