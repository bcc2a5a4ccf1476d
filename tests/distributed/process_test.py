"""The main program of a run's processes."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from acme_qsm.distributed.processes import process
process.drop_output_on_errors()
print("a" * 100_000)
print("b", file=sys.stderr)
sys.stdout.flush()
sys.exit(7)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_who_prints_to_a_full_disk_does_not_fail():
  with open("/dev/full", "wb") as full:
    process = subprocess.run(
      [sys.executable, "-c", PROGRAM], stdout=full, stderr=full
    )
  assert process.returncode == 7


def test_what_is_printed_arrives():
  process = subprocess.run(
    [sys.executable, "-c", PROGRAM], capture_output=True, text=True
  )
  assert process.stdout == "a" * 100_000 + "\n"
  assert process.stderr == "b\n"
