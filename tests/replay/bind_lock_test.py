"""Finding where Reverb binds, while another thread loads libraries."""

import importlib.util
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.acme

# A library that the loader has not seen yet is one that it takes its lock for.
SCRIPT = """
import ctypes
import pathlib
import sys
import threading

import reverb  # noqa: F401

from acme_qsm.replay.listening import bind

sys.setswitchinterval(1e-6)
libraries = map(str, pathlib.Path(sys.argv[1]).iterdir())
thread = threading.Thread(target=lambda: list(map(ctypes.CDLL, libraries)))
thread.start()
while thread.is_alive():
  assert bind._find_slots("bind", "/reverb/")
"""


def test_no_lock_of_the_loader_is_held(tmp_path):
  # One that is not large.
  library = importlib.util.find_spec("kiwisolver._cext").origin
  for i in range(50):
    shutil.copy(library, tmp_path / f"{i}.so")
  subprocess.run(
    [sys.executable, "-c", SCRIPT, tmp_path], check=True, timeout=120
  )
