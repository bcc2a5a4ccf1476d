"""Which Python a launcher runs with, and what is installed there.

The packages of `ACMES` have wheels for Python 3.10 alone. So they have an
environment of their own, `.venv-acme`, beside the one that `uv run` keeps. A
command that needs them goes on there; uv makes it when that first happens.

This file loads nothing but the standard library, and has no syntax that an
older Python cannot read: `check` is to tell that Python that it is too old.
"""

import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-acme"
ACMES = (
  *("acme", "gym", "gym_notices", "launchpad", "ray", "reverb", "sonnet"),
  *("tensorflow", "trfl"),
)
"""What is installed in that environment alone, by the names of imports."""

_PYTHON = "3.10"


class InstallationError(ModuleNotFoundError):
  """What is missing cannot be had; says what to do, in one line."""


def check() -> None:
  """Ends a launcher that runs with the wrong Python, with one line.

  From here on, a package that is missing ends it with one line, too.
  """
  if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    version = ".".join(map(str, sys.version_info[:2]))
    say(_advise(f"this is Python {version}, and 3.10 to 3.13 are needed"))
    sys.exit(2)
  usual = sys.excepthook

  def say_what_is_missing(kind, error, traceback):
    name = (getattr(error, "name", None) or "").split(".")[0]
    # A module of the clone's own is missing by mistake: that has a traceback.
    if not issubclass(kind, ModuleNotFoundError) or (ROOT / name).exists():
      usual(kind, error, traceback)
    else:
      say(_advise(f"{sys.executable} has no package {name!r}"))

  sys.excepthook = say_what_is_missing


def _advise(problem: str) -> str:
  script = os.path.relpath(sys.argv[0], str(ROOT))
  return (
    f"Error: {problem}. In {ROOT}, `uv run {script}` brings what is needed; "
    "README.md says how to get uv."
  )


def say(line: str) -> None:
  """Prints a line to standard error."""
  print(line, file=sys.stderr, flush=True)


def fail(error: Exception, argv: "list | None") -> int:
  """Says what is wrong, or goes on in the environment with Acme if that helps.

  It helps if a package of `ACMES` is missing here.

  Args:
    error: what is wrong.
    argv: the command's arguments; None for those of this process. Only with
      those can it go on elsewhere.

  Returns:
    The exit code of a run that was not started.
  """
  name = (getattr(error, "name", None) or "").split(".")[0]
  if argv is None and name in ACMES:
    try:
      require(name)
    except InstallationError as problem:
      error = problem
  say(f"Error: {error}")
  return 2


def require(*packages: str) -> None:
  """Goes on in the environment with Acme, unless all packages are here.

  Args:
    *packages: of `ACMES`.

  Raises:
    InstallationError: if the command cannot go on there.
  """
  missing = [
    name
    for name in dict.fromkeys(packages)
    if not importlib.util.find_spec(name)
  ]
  if not missing:
    return
  names = ", ".join(missing)
  # Else the command would come here again, and so on without end.
  if pathlib.Path(sys.prefix) == ENVIRONMENT:
    raise InstallationError(
      f"{ENVIRONMENT} lacks {names}; remove it, and the same command makes it "
      "again."
    )
  run(sys.orig_argv[1:], names)


def run(arguments: list, reason: str = "") -> None:
  """Replaces this process by a Python that has Acme.

  Args:
    arguments: Python's.
    reason: what is missing here.

  Raises:
    InstallationError: if there is none, and none can be made.
  """
  python = make_environment()
  if reason:
    say(f"Going on in {ENVIRONMENT.name}, which has {reason}.")
  sys.stdout.flush()
  os.execve(python, [python, *arguments], make_variables())


def make_variables() -> dict:
  """The environment variables of a process with Acme."""
  variables = {**os.environ, "VIRTUAL_ENV": str(ENVIRONMENT)}
  variables.pop("PYTHONHOME", None)
  path = variables.get("PATH", os.defpath)
  variables["PATH"] = os.pathsep.join([str(ENVIRONMENT / "bin"), path])
  return variables


def make_environment() -> str:
  """Makes the environment with Acme, unless it is as uv.lock says.

  Returns:
    Its Python.

  Raises:
    InstallationError: if it cannot be made.
  """
  python = ENVIRONMENT / "bin" / "python"
  # With the packages for a GPU if they were asked for, there or here.
  there = ENVIRONMENT.glob("lib/*/site-packages/jax_cuda12_plugin")
  gpu = [*there] or importlib.util.find_spec("jax_cuda12_plugin")
  extras = ["acme", "ray", *(["cuda12"] if gpu else [])]
  # Written last: an environment that was half made is made again.
  stamp = ENVIRONMENT / "made_from"
  lock = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()
  content = " ".join([lock, *extras, str(ROOT)])
  try:
    if stamp.read_text() == content and python.exists():
      return str(python)
  except OSError:
    pass
  uv = find_uv()
  if not uv:
    raise InstallationError(
      f"{ENVIRONMENT} is missing, and so is uv, which makes it; README.md says "
      "how to get uv."
    )
  say(
    f"Making {ENVIRONMENT} with Acme, Reverb, Launchpad and Ray, once (2 GB)."
  )
  done = subprocess.run(
    [
      *(*uv, "sync", "--frozen", "--inexact", "--project", str(ROOT)),
      *("--python", _find_python(uv)),
      *(word for extra in extras for word in ("--extra", extra)),
    ],
    env={
      **{k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"},
      "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT),
    },
    stderr=subprocess.PIPE,
    text=True,
  )
  if done.returncode:
    raise InstallationError(
      f"{ENVIRONMENT} cannot be made: {_shorten(done.stderr)}. It takes a "
      f"network, and Python {_PYTHON}, which uv fetches where it can; then the "
      "same command goes on."
    )
  stamp.write_text(content)
  return str(python)


def find_uv() -> list:
  """The command that is uv; empty if there is none."""
  commands = [
    # `uv run` says which one it is.
    [os.environ.get("UV", "")],
    [shutil.which("uv") or ""],
    [sys.executable, "-m", "uv"],
    # Where PATH does not look, or not for this Python.
    [os.path.expanduser("~/.local/bin/uv")],
    *([str(path)] for path in _pyenv().glob("versions/3.*/bin/uv")),
  ]
  return next(filter(_runs, commands), [])


def _runs(command: list) -> bool:
  # Pyenv has programs in PATH that work with one of its Pythons alone.
  try:
    done = subprocess.run(
      [*command, "--version"],
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
  except OSError:
    return False
  return done.returncode == 0


def _find_python(uv: list) -> str:
  """Where Python 3.10 is, or else its number, for uv to fetch it."""
  found = subprocess.run(
    [*uv, "python", "find", "--system", "--no-python-downloads", _PYTHON],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  if found.returncode == 0:
    return found.stdout.strip()
  # Uv does not see those of pyenv's Pythons that are not in use.
  for path in sorted(_pyenv().glob(f"versions/{_PYTHON}*/bin/python3")):
    if _runs([str(path)]):
      return str(path)
  return _PYTHON


def _pyenv() -> pathlib.Path:
  # Unlike pathlib's `home`, this does not fail for a user without a home.
  home = os.path.expanduser("~/.pyenv")
  return pathlib.Path(os.environ.get("PYENV_ROOT") or home)


def _shorten(text: str) -> str:
  """What uv says has failed, and the last cause that it names."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  found = [line for line in lines if line.startswith("error:")] or lines[-1:]
  causes = [line for line in lines if line.lower().startswith("cause")]
  return "; ".join([*found[:1], *causes[-1:]])
