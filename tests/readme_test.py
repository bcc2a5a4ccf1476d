"""Tests that what the READMEs show is true."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest

ROOT = pathlib.Path(__file__).parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[al]*/**/README.md"))]
BLOCKS = [
  code
  for path in READMES
  for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
]
# These train for hours, and leave a work directory.
TRAINING = [code for code in BLOCKS if "run_experiment(" in code]
SHORT = [code for code in BLOCKS if code not in TRAINING]
# They need Acme, which the default environment lacks.
ACMES = re.compile(r"^(?:import|from) acme\b", re.MULTILINE)
# What a snippet may take, in seconds: far more than it does.
DEADLINE = 400.0


def mark(code):
  """A training block as a parameter, marked where it needs Acme."""
  return pytest.param(
    code, marks=[pytest.mark.acme] if ACMES.search(code) else []
  )


def count_rows(folder, name):
  """The rows in the logs of that name of the runs below a folder."""
  return sum(
    max(0, len(path.read_text().splitlines()) - 1)
    for path in folder.rglob(f"logs/{name}.csv")
  )


@pytest.mark.parametrize("code", SHORT, ids=map(str, range(len(SHORT))))
def test_python_examples_run(code, tmp_path, monkeypatch):
  from acme_qsm import methods

  monkeypatch.chdir(tmp_path)
  # One adds a method of one's own.
  with mock.patch.dict(methods.METHODS):
    exec(compile(code, "snippet.py", "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize(
  "code", map(mark, TRAINING), ids=map(str, range(len(TRAINING)))
)
def test_python_examples_train(code, tmp_path):
  output, script = tmp_path / "output", tmp_path / "snippet.py"
  script.write_text(code)
  with (
    output.open("wb") as stream,
    subprocess.Popen(
      [sys.executable, str(script)],
      cwd=tmp_path,
      # Where runs are kept that do not say where.
      env={**os.environ, "HOME": str(tmp_path)},
      stdout=stream,
      stderr=subprocess.STDOUT,
    ) as process,
  ):
    try:
      deadline = time.monotonic() + DEADLINE
      while not (
        count_rows(tmp_path, "evaluator") and count_rows(tmp_path, "learner")
      ):
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
      process.send_signal(signal.SIGINT)
      # As Python ends after Ctrl-C.
      assert process.wait(DEADLINE) == -signal.SIGINT, output.read_text()
    finally:
      process.kill()
  assert output.read_text().rstrip().endswith("KeyboardInterrupt")
  assert list(tmp_path.rglob("checkpoints/*/metadata.json"))


def test_there_are_examples_of_both_kinds():
  assert TRAINING
  assert SHORT


def test_readmes_of_rooms_are_found():
  rooms = {path.parent.name for path in READMES}
  assert {"acme_qsm", "agents", "distributed", "launchers", "methods"} <= rooms


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_files_and_links_exist(readme):
  text = readme.read_text()
  for path in re.findall(r"\]\(([^)#]+)\)", text):
    if "://" not in path:
      assert (readme.parent / path).exists(), path
  for path in re.findall(r"`((?:acme_qsm|launchers|tests)/[\w/.]+)`", text):
    assert (ROOT / path).exists(), path
