"""Finding where Reverb binds, while other threads load libraries."""

import subprocess
import sys

SCRIPT = """
import ctypes
import sys
import threading

import reverb

from acme_qsm.replay.listening import bind

sys.setswitchinterval(1e-6)
done = threading.Event()


def load():
  while not done.is_set():
    ctypes.CDLL(reverb.pybind.__file__)


threading.Thread(target=load, daemon=True).start()
for _ in range(20):
  assert bind._find_slots("bind", "/reverb/")
done.set()
"""


def test_no_lock_of_the_loader_is_held():
  subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=120)
