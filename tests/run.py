"""Runs the tests: each once, in the environment that it needs.

  uv run tests/run.py [arguments of pytest]

First those that do without Acme, in the environment that this runs in; then
those marked `acme`, in one that has it, which is made if need be. Where that
cannot be, they are left out, and it is said; with CI set, that is a failure.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))

from launchers import installation
from tests import selection

# What pytest ends with where it found nothing to run.
_NOTHING = 5
_UNLESS_TOLD = "not slow"
# As pytest ends, by how it names what it counted.
_CLOSING = re.compile(r"^=* ?((?:\d+ \w+(?:, )?)+|no tests ran) in [\d.]+s")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


def split(arguments: Sequence[str]) -> tuple[list[str], str]:
  """Takes the expression of marks out of pytest's arguments.

  Args:
    arguments: pytest's.

  Returns:
    The others, and the expression, or what it is unless given.
  """
  others, marks = [], _UNLESS_TOLD
  words = iter(arguments)
  for word in words:
    if word == "-m":
      marks = next(words, "")
    elif word.startswith("-m"):
      marks = word[2:].removeprefix("=")
    else:
      others.append(word)
  return others, marks


def without_acmes(arguments: Sequence[str]) -> list[str] | None:
  """Takes modules that need Acme out of pytest's arguments.

  Args:
    arguments: pytest's.

  Returns:
    The others; None if those are all modules that there are.
  """
  modules = [word for word in arguments if ".py" in word]
  acmes = [
    word
    for word in modules
    if selection.needs_acme(ROOT / word.partition("::")[0])
  ]
  if acmes and acmes == modules:
    return None
  return [word for word in arguments if word not in acmes]


def add_up(outputs: Sequence[str], seconds: float) -> str:
  """Makes one closing line of those of several runs.

  Args:
    outputs: what each run of pytest printed, or the end of that.
    seconds: how long they took together.

  Returns:
    The line. A run that was cut short, and has none, counts as an error.
  """
  counts: dict[str, int] = {}
  for output in outputs:
    lines = _COLOR.sub("", output).splitlines()
    closing = [found[1] for line in lines if (found := _CLOSING.match(line))]
    counted = closing[-1] if closing else "1 error"
    for number, what in re.findall(r"(\d+) (\w+)", counted):
      what = {"error": "errors", "warning": "warnings"}.get(what, what)
      counts[what] = counts.get(what, 0) + int(number)
  order = ("failed", "passed")
  names = sorted(counts, key=lambda name: (name not in order, name))
  said = ", ".join(f"{counts[name]} {name}" for name in names)
  return f"{said or 'no tests ran'} in {seconds:.2f}s"


def _run(title: str, python: str, arguments: Sequence[str]) -> tuple[int, str]:
  """Runs pytest; returns its exit code and the end of what it printed."""
  print(f"== {title}: {python}", flush=True)
  with subprocess.Popen(
    [
      *(python, "-m", "pytest"),
      *(["--color=yes"] if sys.stdout.isatty() else []),
      *arguments,
    ],
    cwd=ROOT,
    env=(None if python == sys.executable else installation.make_variables()),
    stdout=subprocess.PIPE,
  ) as process:
    assert process.stdout is not None
    output = b""
    try:
      while read := os.read(process.stdout.fileno(), 1 << 16):
        sys.stdout.buffer.write(read)
        sys.stdout.flush()
        output = (output + read)[-(1 << 16) :]
    except BaseException:
      process.terminate()
      raise
  return process.returncode, output.decode(errors="replace")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the tests; returns an exit code as pytest's."""
  arguments, marks = split(sys.argv[1:] if argv is None else argv)
  marks = f"({marks}) and " if marks else ""
  code, acme = 0, ""
  try:
    acme = installation.make_environment()
  except installation.InstallationError as error:
    code = 1 if os.environ.get("CI") else 0
    print(f"Left out: all tests marked acme. {error}", flush=True)
  started, found = time.monotonic(), []
  if (others := without_acmes(arguments)) is not None:
    others = [*others, "-m", f"{marks}not acme"]
    found.append(_run("Tests without Acme", sys.executable, others))
  if acme:
    others = [*arguments, "-m", f"{marks}acme"]
    found.append(_run("Tests with Acme", acme, others))
  codes = [each for each, _ in found]
  print(f"== Together, exit codes {codes}")
  print(add_up([output for _, output in found], time.monotonic() - started))
  if all(each == _NOTHING for each in codes):
    return _NOTHING
  return next((each for each in codes if each not in (0, _NOTHING)), code)


if __name__ == "__main__":
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
  try:
    sys.exit(main())
  except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)
