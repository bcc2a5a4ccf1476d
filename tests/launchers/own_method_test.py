"""README's method of one's own, from its loss to `--agent`."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from acme_qsm import methods
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.experiments.surroundings import own_modules
from launchers import command_line
from launchers import local
from tests.distributed.launched import Launched

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def code():
  blocks = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
  )
  (block,) = [block for block in blocks if "class BatchMeanConfig" in block]
  return block


@pytest.fixture
def folder(tmp_path, code):
  (tmp_path / "batch_mean.py").write_text(code)
  return tmp_path


def test_it_has_30_lines(code):
  assert sum(bool(line.strip()) for line in code.splitlines()) <= 30
  assert max(map(len, code.splitlines())) <= 80


def make_command(launcher, small_arguments, num_steps):
  # As README has it.
  (typed,) = re.findall(
    r"launchers/local.py (--agent batch_mean\S*)\n",
    (ROOT / "README.md").read_text(),
  )
  return [
    *(sys.executable, str(ROOT / "launchers" / f"{launcher}.py")),
    *(*small_arguments(), *typed.split(), "--gradient_size", "2"),
    *("--num_steps", str(num_steps)),
  ]


@pytest.fixture
def here(folder, monkeypatch):
  """The folder that a command is typed in; forgets what it imports."""
  monkeypatch.chdir(folder)
  monkeypatch.setattr(sys, "path", list(sys.path))
  # Restored by the end of the test.
  monkeypatch.setenv("ACME_QSM_MODULES", "")
  monkeypatch.delenv("ACME_QSM_MODULES")
  monkeypatch.delitem(sys.modules, "batch_mean", raising=False)
  yield folder
  methods.METHODS.pop("batch_mean", None)


@pytest.mark.slow
def test_it_trains_and_goes_on(here, small_arguments):
  workdir = here / "runs" / "batch_mean" / "cartpole_balance" / "seed_0"
  for num_steps in (800, 1400):
    command = make_command("local", small_arguments, num_steps)
    if num_steps == 800:
      environment = {**os.environ, "PYTHONPATH": str(ROOT)}
      subprocess.run(command, env=environment, check=True)
    else:
      assert local.main(command[2:]) == 0
    log = read_csv(workdir / "logs" / "learner.csv")
    assert np.all(np.isfinite(log["denoiser_loss"]))
    # One update for each step once replay holds 200; a row for some of them.
    assert num_steps - 900 < log["learner_steps"][-1] <= num_steps - 200
    assert (workdir / "learning_curve.png").exists()
  # It is not left as it was: its loss falls from what an untrained one has.
  assert log["denoiser_loss"][-1] < 0.8 * log["denoiser_loss"][0]
  assert '"gradient_size": 2.0' in (workdir / "config.json").read_text()


@pytest.mark.acme
@pytest.mark.slow
def test_it_trains_in_many_processes(folder, small_arguments, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  workdir = folder / "run"
  run = Launched(
    [
      *("env", "-C", folder),
      *make_command("distributed", small_arguments, 600),
      *("--num_actors", "1", "--workdir", workdir),
    ],
    workdir,
    folder,
  )
  assert run.wait() == 0, run.describe()
  log = read_csv(workdir / "logs" / "learner.csv")
  assert np.all(np.isfinite(log["denoiser_loss"]))


@pytest.fixture
def hostile_folder(here):
  """A folder with a method, and with modules named as Python's own."""
  for name in ("types", "queue", "tree", "wave"):
    (here / f"{name}.py").write_text("raise RuntimeError(__file__)")
  return here


def test_other_modules_of_its_folder_take_no_place(hostile_folder):
  argv = ["--agent", "batch_mean:batch_mean"]
  arguments = command_line.parse(command_line.Arguments, argv)
  assert arguments.config.gradient_size == 3.0
  import wave  # Which nothing has loaded so far.

  assert pathlib.Path(wave.__file__).parent != hostile_folder
  # Nor do they in processes that are started, by whatever means.
  mark = hostile_folder / "mark.py"
  mark.write_text(
    "import queue, sys, types, wave\n"
    "from acme_qsm.experiments.surroundings import own_modules\n"
    "own_modules.find()\n"
    "import batch_mean\n"
    "print(batch_mean.__file__, *sys.argv[1:])\n"
  )
  done = subprocess.run(
    own_modules.command("mark", "one", "two"),
    env={**os.environ, "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.split() == [
    str(hostile_folder / "batch_mean.py"),
    *("one", "two"),
  ]


@pytest.mark.parametrize(
  ("agent", "message"),
  [
    (
      "no_such_module:mine",
      "'no_such_module:mine'.*no module 'no_such_module'",
    ),
    ("json.nothing:mine", "no module 'json.nothing'"),
    ("json:mine", "Unknown agent 'mine'"),
    (":mine", "must be NAME or MODULE:NAME, got ':mine'"),
    ("./batch_mean.py:mine", "must be NAME or MODULE:NAME"),
  ],
)
def test_modules_that_are_not_there(agent, message, monkeypatch):
  monkeypatch.setattr(sys, "path", list(sys.path))
  monkeypatch.setenv("PYTHONPATH", "")
  with pytest.raises(ValueError, match=message):
    command_line.parse(command_line.Arguments, ["--agent", agent])
  assert "mine" not in methods.METHODS


@pytest.mark.parametrize("name", ["json", "sys", "other_own"])
def test_a_module_whose_name_another_has(name, tmp_path, monkeypatch):
  first = tmp_path / "first"
  first.mkdir()
  (first / "other_own.py").touch()
  here = tmp_path / "here"
  here.mkdir()
  (here / f"{name}.py").touch()
  monkeypatch.chdir(here)
  monkeypatch.setattr(sys, "path", [str(first), *sys.path])
  monkeypatch.setenv("ACME_QSM_MODULES", "")
  monkeypatch.delitem(sys.modules, "other_own", raising=False)
  with pytest.raises(ValueError, match=f"{name}' in .* comes first: rename"):
    command_line.parse(local.Arguments, ["--agent", f"{name}:qsm"], "")
  sys.modules.pop("other_own", None)
