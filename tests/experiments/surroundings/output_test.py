"""Printing to what is closed, full or takes ASCII alone."""

import contextlib
import io
import logging
import os
import subprocess
import sys
import warnings

import pytest
from rich.console import Console

from acme_qsm.experiments.surroundings import native_output
from acme_qsm.experiments.surroundings import output
from acme_qsm.experiments.surroundings import progress


def open_broken_pipe():
  """A text stream whose reader has gone, as after `| head -1`."""
  reader, writer = os.pipe()
  os.close(reader)
  return os.fdopen(writer, "w")


def open_full_disk():
  return open("/dev/full", "w")


@pytest.mark.parametrize("open_stream", [open_broken_pipe, open_full_disk])
def test_what_cannot_be_printed_is_dropped(open_stream):
  # That nothing is left to fail is seen at the end: closing flushes.
  with open_stream() as stream:
    forgiving = output.forgiving(stream)
    for _ in range(3):
      # More than a buffer holds, so that `write` itself fails too.
      print("x" * 100_000, file=forgiving)
      print("a line", file=forgiving, flush=True)
    assert not forgiving.isatty()


def test_what_comes_after_is_printed(tmp_path):
  path = tmp_path / "output"
  with path.open("w") as stream, open("/dev/full", "w") as full:
    descriptor = os.dup(stream.fileno())
    forgiving = output.forgiving(stream)
    os.dup2(full.fileno(), stream.fileno())
    print("lost", file=forgiving, flush=True)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    print("printed", file=forgiving, flush=True)
  assert path.read_text() == "printed\n"


def test_what_cannot_be_encoded_is_replaced():
  content = io.BytesIO()
  stream = io.TextIOWrapper(content, encoding="ascii")
  print("12 ± 3 · é", file=output.forgiving(stream), flush=True)
  output.forgiving(stream).writelines(["1 ", "±"])
  stream.flush()
  assert content.getvalue() == b"12 \\xb1 3 \\xb7 \\xe9\n1 \\xb1"


def test_a_stream_that_is_closed_or_none():
  stream = io.StringIO()
  stream.close()
  for each in (stream, None):
    forgiving = output.forgiving(each)
    print("nothing", file=forgiving, flush=True)
    assert not forgiving.isatty()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_of_a_script_whose_output_is_closed(monkeypatch, terminal):
  with open_broken_pipe() as stream:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "_REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with progress.Progress(10, "task") as display:
      display.note("1 ± 2")
      display.update(5, loss=1.0)
    assert sys.stdout is stream


def test_the_display_in_ascii():
  content = io.BytesIO()
  stream = io.TextIOWrapper(content, encoding="ascii")
  console = Console(
    file=output.forgiving(stream),
    force_terminal=True,
    width=80,
  )
  with progress.Progress(10, "task", console=console) as display:
    display.note("1 ± 2")
    display.update(5, loss=1.0)
  assert b"1 \\xb1 2" in content.getvalue()
  assert b"task" in content.getvalue()


def test_standard_streams_that_are_broken(monkeypatch):
  with open_broken_pipe() as out, open_broken_pipe() as err:
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with output.surviving():
      print("±" * 10_000)
      print("error", file=sys.stderr)
      with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("a warning", stacklevel=1)
      handler = logging.StreamHandler()
      handler.emit(logging.makeLogRecord({"msg": "a log"}))
    assert (sys.stdout, sys.stderr) == (out, err)


CLOSED = """
import os, pathlib, sys
from acme_qsm.experiments.surroundings import native_output, output

with output.surviving():
  print("out")
  print("err", file=sys.stderr)
  path = pathlib.Path(sys.argv[1])
  with native_output.redirected(path), open(path.with_name("other"), "w") as f:
    # No file of ours is in the place of a standard stream.
    assert f.fileno() > 2
    os.write(2, b"native\\n")
    print("err", file=sys.stderr)
  assert path.read_text() == "native\\n", path.read_text()
sys.exit(7)
"""


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_from_the_start(tmp_path, closed):
  done = subprocess.run(
    [
      *("sh", "-c", f'exec "$0" -c "$1" "$2" {closed}'),
      *(sys.executable, CLOSED, tmp_path / "native.log"),
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 7, done.stderr
  assert done.stdout == ("" if ">&-" in closed.split()[:2] else "out\n")
  assert done.stderr == ("" if "2>&-" in closed else "err\nerr\n")


def test_native_output_that_has_nowhere_to_go(tmp_path):
  (tmp_path / "file").write_text("")
  with native_output.redirected(tmp_path / "file" / "native.log"):
    pass
  with contextlib.ExitStack() as stack:
    stack.enter_context(native_output.redirected(tmp_path / "native.log"))
    os.write(2, b"native\n")
  assert (tmp_path / "native.log").read_bytes() == b"native\n"
