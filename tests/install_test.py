"""Installing the package, by the commands that the READMEs give."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("acme_qsm/**/README.md"))]
# In a clone: the package is the current folder.
COMMANDS = sorted(
  {
    command
    for path in READMES
    for command in re.findall(
      r"(?:^|`)((?:uv )?pip install (?:\.(?!\[)|'\.\[[\w,]+\]'))",
      path.read_text(),
      re.MULTILINE,
    )
  }
)
CORE = """
import importlib.util
import acme_qsm
acme_qsm.make_learner_core, acme_qsm.make_networks, acme_qsm.make_policy
assert importlib.util.find_spec("acme") is None
"""
WITH_ACME = """
import acme_qsm.agents.builder
import acme_qsm.environments
import acme_qsm.experiments
"""


# The README's first command, of a short run.
(FIRST_COMMAND,) = re.findall(
  r"^.*launchers/local\.py --task .*$", READMES[0].read_text(), re.MULTILINE
)
SHORT_RUN = (
  " --num_steps 400 --min_replay_size 256 --eval_every 400"
  " --num_eval_episodes 1 --workdir "
)
FORBIDDEN = ("acme", "gym", "launchpad", "reverb", "sonnet", "tensorflow")


def run(command, **kwargs):
  done = subprocess.run(command, capture_output=True, text=True, **kwargs)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def find_uv():
  # `uv run` says which one it is.
  uv = os.environ.get("UV") or shutil.which("uv")
  return [uv] if uv else [sys.executable, "-m", "uv"]


def make_venv(path, python=sys.executable):
  """Makes one; returns the environment variables after its activation."""
  run([*find_uv(), "venv", "--seed", "--python", python, str(path)])
  return {
    **os.environ,
    "VIRTUAL_ENV": str(path),
    "PATH": f"{path / 'bin'}:{os.environ['PATH']}",
  }


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_s_commands_install_the_package(command, tmp_path):
  venv = tmp_path / "venv"
  environment = make_venv(venv)
  run(["bash", "-c", command], cwd=ROOT, env=environment)
  code = WITH_ACME if "acme" in command else CORE
  python = str(venv / "bin" / "python")
  # Elsewhere, so that it is what was installed.
  run([python, "-W", "ignore", "-c", code], cwd=tmp_path, env=environment)
  where = "import acme_qsm; print(acme_qsm.__file__)"
  found = pathlib.Path(run([python, "-c", where], cwd=tmp_path).strip())
  assert found.is_relative_to(venv)


@pytest.mark.slow
def test_the_acme_extra_is_among_them():
  assert "uv pip install '.[acme]'" in COMMANDS


@pytest.mark.slow
def test_the_readme_s_first_command_trains_without_acme(tmp_path):
  venv = tmp_path / "venv"
  environment = make_venv(venv)
  command = FIRST_COMMAND + SHORT_RUN + str(tmp_path / "run")
  output = run(["bash", "-c", command], cwd=ROOT, env=environment)
  assert "400 environment steps: evaluation return" in output
  assert "Done: 400 environment steps" in output
  python = str(venv / "bin" / "python")
  find = "import importlib.util, sys; print([n for n in sys.argv[1:] if "
  find += "importlib.util.find_spec(n)])"
  assert run([python, "-c", find, *FORBIDDEN], cwd=tmp_path).strip() == "[]"


def find_newer_python():
  """One that EnvPool has wheels for; a version for uv to fetch if none is."""
  root = pathlib.Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
  names = ("python3.12", "python3.13")
  found = [
    *root.glob("versions/3.1[23]*/bin/python3"),
    *map(shutil.which, names),
  ]
  check = "import sys; assert (3, 12) <= sys.version_info < (3, 14)"
  for path in filter(None, found):
    # Some stand for a Python that is not there.
    if subprocess.run([path, "-c", check], capture_output=True).returncode == 0:
      return str(path)
  return "3.12"


@pytest.mark.slow
def test_envpool_steps_dm_control_s_tasks(tmp_path):
  venv = tmp_path / "venv"
  environment = make_venv(venv, python=find_newer_python())
  install = [*find_uv(), "pip", "install", "--python", str(venv)]
  run([*install, ".[run,envpool]", "pytest"], cwd=ROOT, env=environment)
  # By itself: with some Pythons pip and uv cannot install what it depends on.
  run([*install, "--no-deps", "dm-control"], cwd=ROOT, env=environment)
  flags = ["-c", "pyproject.toml", "-p", "no:cacheprovider", "-o", "addopts="]
  # The conftest above it needs Reverb.
  flags += ["--confcutdir=tests/environments", "--import-mode=importlib"]
  tests = "tests/environments/pool_test.py"
  python = str(venv / "bin" / "python")
  # Without options of this run, which that pytest may not know.
  environment.pop("PYTEST_ADDOPTS", None)
  command = [python, "-m", "pytest", *flags, tests]
  output = run(command, cwd=ROOT, env=environment)
  assert "passed" in output
  assert "skipped" not in output
