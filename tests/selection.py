"""Which tests run where, and for how long at most.

There are two environments: the default one, which `uv run` brings, and one with
Acme, Reverb, Launchpad, Ray and TensorFlow, on Python 3.10 (see `run.py`). What
is marked `acme` needs the second, all else runs in the first.
"""

import faulthandler
import importlib.util
import os
import pathlib
import re

import pytest

_HAS_ACME = importlib.util.find_spec("reverb") is not None
# Of a whole module. Where one needs Acme without that line it cannot be loaded,
# so that nothing is lost silently.
_MARK = re.compile(r"^pytestmark = .*\bpytest\.mark\.acme\b", re.MULTILINE)
# How long after its time a test is ended with the process that it is in: what
# hangs in C hears of no signal.
_GRACE_SECONDS = 60.0


def needs_acme(path: pathlib.Path) -> bool:
  """Whether a file is a module all of whose tests need Acme."""
  return (
    path.name.endswith("_test.py")
    and path.is_file()
    and bool(_MARK.search(path.read_text()))
  )


def pytest_ignore_collect(collection_path: pathlib.Path) -> bool | None:
  """Leaves modules that need Acme unread where there is none."""
  return (not _HAS_ACME and needs_acme(collection_path)) or None


def pytest_collection_modifyitems(
  config: pytest.Config, items: list[pytest.Item]
) -> None:
  """Leaves out single tests, too."""
  if _HAS_ACME:
    return
  left_out = [item for item in items if item.get_closest_marker("acme")]
  config.hook.pytest_deselected(items=left_out)
  items[:] = [item for item in items if not item.get_closest_marker("acme")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
  """Ends, with a traceback of each thread, what pytest-timeout could not."""
  if seconds := _time_limit(item):
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)
  try:
    return (yield)
  finally:
    faulthandler.cancel_dump_traceback_later()


def _time_limit(item: pytest.Item) -> float:
  """A test's seconds as pytest-timeout has them; 0 for no limit."""
  if marker := item.get_closest_marker("timeout"):
    return [*marker.args, *marker.kwargs.values()][0]
  limits = (
    item.config.getoption("timeout", None),
    os.environ.get("PYTEST_TIMEOUT"),
    item.config.getini("timeout"),
  )
  return next((float(limit) for limit in limits if limit not in (None, "")), 0)
