"""Runs a command in the environment with Acme, Reverb, Launchpad and Ray.

  uv run launchers/with_acme.py ray start --head
  uv run launchers/with_acme.py launchers/benchmark.py

The environment is made first if need be.
"""

import pathlib
import sys

if __name__ == "__main__":
  # The clone comes first, wherever this is started and whatever is installed.
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
  from launchers import installation

  installation.check()

import os

from launchers import installation


def main(argv: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code of what cannot be run."""
  argv = sys.argv[1:] if argv is None else argv
  if not argv or argv[0] in ("-h", "--help"):
    print(__doc__)
    return 0 if argv else 2
  try:
    if argv[0].endswith(".py"):
      installation.run(argv)
    installation.make_environment()
    os.execvpe(argv[0], argv, installation.make_variables())
  except (installation.InstallationError, OSError) as error:
    print(f"Error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
  sys.exit(main())
