"""Disks that are soon full, for tests."""

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def mounted(path: pathlib.Path, size: str) -> Iterator[pathlib.Path | None]:
  """Mounts a file system of that size; gives None where that needs root."""
  path.mkdir()
  try:
    done = subprocess.run(
      ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path],
      capture_output=True,
    )
  except FileNotFoundError:  # There is no `mount`.
    yield None
    return
  if done.returncode:
    yield None
    return
  try:
    yield path
  finally:
    subprocess.run(["umount", "--lazy", path], check=True)


@contextlib.contextmanager
def small_disk(path: pathlib.Path, size: str) -> Iterator[pathlib.Path]:
  """Mounts a file system of that size; skips the test where that needs root."""
  with mounted(path, size) as disk:
    if disk is None:
      pytest.skip("mounting a small disk needs root")
    yield disk
