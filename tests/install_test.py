"""Installing the package, by the commands that the READMEs give."""

import ast
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from launchers import installation

ROOT = pathlib.Path(__file__).parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("[al]*/**/README.md"))]
# In a clone: the package is the current folder.
COMMANDS = {
  command
  for path in READMES
  for command in re.findall(
    r"(?:^|`)((?:uv )?pip install (?:\.(?!\[)|'\.\[[\w,]+\]'))",
    path.read_text(),
    re.MULTILINE,
  )
}
SHORT_RUN = [
  *("--num_steps", "400", "--min_replay_size", "256", "--eval_every", "400"),
  *("--num_eval_episodes", "1"),
]
# What an environment without Acme lacks.
FORBIDDEN = ("acme", "gym", "launchpad", "reverb", "sonnet", "tensorflow")
LAUNCHERS = [
  path
  for path in sorted(ROOT.glob("launchers/*.py"))
  if "__main__" in path.read_text()
]


def run(command, **kwargs):
  done = subprocess.run(command, capture_output=True, text=True, **kwargs)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.fixture
def venv(tmp_path):
  """The folder of a new one, and the variables after its activation."""
  folder = tmp_path / "venv"
  uv = installation.find_uv()
  run([*uv, "venv", "--seed", "--python", sys.executable, str(folder)])
  variables = {
    **os.environ,
    "VIRTUAL_ENV": str(folder),
    "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
  }
  # Tests' own, which a newer JAX may not know.
  variables.pop("XLA_FLAGS", None)
  return folder, variables


def test_the_readmes_have_these_commands():
  assert sorted(COMMANDS) == [
    *("pip install '.[run]'", "pip install .", "uv pip install '.[acme]'"),
  ]
  blocks = re.findall(r"```bash\n(.*?)```", READMES[0].read_text(), re.DOTALL)
  assert blocks == [
    "uv run launchers/local.py --task cartpole:swingup\n",
    "uv run tests/run.py\n",
  ]


@pytest.mark.slow
def test_pip_installs_what_runs_in_one_process(tmp_path, venv):
  folder, variables = venv
  python = str(folder / "bin" / "python")
  run(["bash", "-c", "pip install '.[run]'"], cwd=ROOT, env=variables)
  if sys.version_info >= (3, 13):
    (more,) = re.findall(
      r"pip install --no-deps dm-control", READMES[0].read_text()
    )
    run(["bash", "-c", more], cwd=ROOT, env=variables)

  # Elsewhere, so that it is what was installed.
  def start(*words):
    launcher, *arguments = words
    command = [python, "-W", "ignore", str(ROOT / "launchers" / launcher)]
    return run([*command, *arguments], cwd=tmp_path, env=variables)

  output = start("local.py", *SHORT_RUN)
  assert "400 environment steps: evaluation return" in output
  assert "Done: 400 environment steps" in output
  start("toys.py", "mixture", "--num_steps", "20")
  assert "--parts" in start("benchmark.py", "--help")
  find = "import acme_qsm, importlib.util, sys; print(acme_qsm.__file__, *(n "
  find += "for n in sys.argv[1:] if importlib.util.find_spec(n)))"
  found = run([python, "-c", find, *FORBIDDEN], cwd=tmp_path).strip()
  assert pathlib.Path(found).is_relative_to(folder)


@pytest.mark.acme
@pytest.mark.slow
def test_uv_installs_acme(tmp_path, venv):
  folder, variables = venv
  uv = " ".join(installation.find_uv())
  install = f"{uv} pip install --python {folder} '.[acme]'"
  run(["bash", "-c", install], cwd=ROOT, env=variables)
  code = "import acme_qsm.acme_compat, acme.agents.jax.sac, launchpad, reverb"
  run([str(folder / "bin" / "python"), "-c", code], cwd=tmp_path)


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
  folder = tmp_path / "venv"
  variables = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(folder)}
  # Options of this run, which are for all tests.
  variables.pop("PYTEST_ADDOPTS", None)
  run(
    [
      *(*installation.find_uv(), "sync", "--project", str(ROOT), "--frozen"),
      *("--extra", "envpool", "--python", find_newer_python()),
    ],
    env=variables,
  )
  flags = ["-o", "addopts=", "--import-mode=importlib"]
  flags += ["-p", "no:cacheprovider"]
  tests = "tests/environments/pool_test.py"
  python = str(folder / "bin" / "python")
  output = run([python, "-m", "pytest", *flags, tests], cwd=ROOT, env=variables)
  assert "passed" in output
  assert "skipped" not in output


@pytest.mark.parametrize(
  "path", [*LAUNCHERS, ROOT / "launchers/installation.py"], ids=lambda p: p.stem
)
def test_an_old_python_can_read_launchers(path):
  # To be told, by `installation.check`, that it is too old.
  ast.parse(path.read_text(), feature_version=(3, 7))


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_another_python_is_told_in_one_line(version, monkeypatch, capsys):
  monkeypatch.setattr(sys, "version_info", version)
  with pytest.raises(SystemExit) as raised:
    installation.check()
  assert raised.value.code == 2
  error = capsys.readouterr().err
  assert error.count("\n") == 1
  assert f"Error: this is Python 3.{version[1]}, and 3.10 to 3.13" in error
  assert "uv run" in error


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_without_packages_one_line_says_how_to_have_them(path, tmp_path):
  if path.stem == "with_acme":
    return  # It needs none.
  done = subprocess.run(
    # Without the site's packages.
    [sys.executable, "-S", "-E", str(path)],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert done.stderr.count("\n") == 1, done.stderr
  assert re.search(r"^Error: \S+ has no package '\w+'\. In ", done.stderr)
  assert f"`uv run launchers/{path.name}`" in done.stderr


@pytest.fixture
def bare_clone(tmp_path):
  """What is to be had of a clone before anything is installed."""
  clone = tmp_path / "clone"
  (clone / "launchers").mkdir(parents=True)
  for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, clone)
  for name in ("installation.py", "with_acme.py"):
    shutil.copy(ROOT / "launchers" / name, clone / "launchers")
  return clone


def ask_for_acme(clone, **variables):
  return subprocess.run(
    [sys.executable, "launchers/with_acme.py", "ray", "--version"],
    cwd=clone,
    env={**os.environ, **variables},
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize("half_made", [False, True])
def test_without_a_network_one_line_says_so(bare_clone, tmp_path, half_made):
  if half_made:
    (bare_clone / ".venv-acme" / "bin").mkdir(parents=True)
    (bare_clone / ".venv-acme" / "pyvenv.cfg").touch()
  done = ask_for_acme(
    bare_clone, UV_OFFLINE="1", UV_CACHE_DIR=str(tmp_path / "cache")
  )
  assert done.returncode == 2
  *_, making, error = done.stderr.splitlines()
  assert making.startswith("Making ")
  assert re.search(r"^Error: \S+/\.venv-acme cannot be made: \w", error)
  assert "network" in error
  assert "Traceback" not in done.stderr
  assert not (bare_clone / ".venv-acme" / "made_from").exists()


def test_without_uv_one_line_says_how_to_get_it(bare_clone):
  nowhere = {"PATH": "/nowhere", "HOME": "/nowhere", "PYENV_ROOT": "/nowhere"}
  done = ask_for_acme(bare_clone, UV="", **nowhere)
  assert done.returncode == 2
  assert done.stderr.count("\n") == 1
  assert "and so is uv" in done.stderr
  assert "README.md says how" in done.stderr


@pytest.mark.parametrize("name", ["a_missing_package", "reverb"])
def test_an_environment_that_lacks_a_package_is_not_gone_to_from_itself(
  name, monkeypatch, capsys
):
  monkeypatch.setattr(installation, "ENVIRONMENT", pathlib.Path(sys.prefix))
  monkeypatch.setattr(installation.importlib.util, "find_spec", lambda _: None)
  monkeypatch.setattr(
    installation, "run", lambda *_: pytest.fail("It goes there for ever.")
  )
  with pytest.raises(installation.InstallationError, match=f"lacks {name}; "):
    installation.require(name)
  if name in installation.ACMES:
    missing = ModuleNotFoundError("No module", name=name)
    assert installation.fail(missing, None) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "remove it" in error
