"""Tests that what the READMEs show is true."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

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


class Script:
  """A snippet that runs as a script of its own, in an empty folder."""

  def __init__(self, code, folder):
    script = folder / "snippet.py"
    script.write_text(code)
    working = folder / "working"
    working.mkdir()
    self._output = folder / "output"
    with self._output.open("wb") as output:
      self.process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=working,
        # Where runs are kept that do not say where.
        env={**os.environ, "HOME": str(working)},
        stdout=output,
        stderr=subprocess.STDOUT,
      )

  def output(self):
    return self._output.read_text()


@pytest.fixture
def start(tmp_path):
  """A function that starts a snippet, which ends with the test."""
  scripts = []

  def start_script(code):
    scripts.append(Script(code, tmp_path))
    return scripts[-1]

  yield start_script
  for script in scripts:
    script.process.kill()
    script.process.wait()


def mark(blocks):
  """The blocks as parameters, marked where they need Acme."""
  return [
    pytest.param(
      code, id=str(i), marks=[pytest.mark.acme] if ACMES.search(code) else []
    )
    for i, code in enumerate(blocks)
  ]


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
  monkeypatch.setattr(methods, "METHODS", dict(methods.METHODS))
  exec(compile(code, "snippet.py", "exec"), {"__name__": "__main__"})


@pytest.mark.slow
@pytest.mark.parametrize("code", mark(TRAINING))
def test_python_examples_train(code, start, tmp_path):
  script = start(code)
  deadline = time.monotonic() + DEADLINE
  while not (
    count_rows(tmp_path, "evaluator") and count_rows(tmp_path, "learner")
  ):
    assert script.process.poll() is None, script.output()
    assert time.monotonic() < deadline, script.output()
    time.sleep(0.1)
  script.process.send_signal(signal.SIGINT)
  # As Python ends after Ctrl-C.
  assert script.process.wait(DEADLINE) == -signal.SIGINT, script.output()
  assert script.output().rstrip().endswith("KeyboardInterrupt")
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
