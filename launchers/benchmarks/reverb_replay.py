"""How fast replay in Reverb is.

  python -m launchers.benchmarks.reverb_replay <transitions per item> <folder>

serves an empty table, in a process of its own, until its input ends; it writes
checkpoints below the folder, and prints its address.
"""

import contextlib
import dataclasses
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import reverb

from acme_qsm import QSMBuilder
from acme_qsm.replay import reverb_server
from launchers.benchmarks import learner as learner_benchmark
from launchers.benchmarks import replay


def _make_builder(transitions_per_item: int) -> QSMBuilder:
  return QSMBuilder(
    dataclasses.replace(
      learner_benchmark.make_config(), transitions_per_item=transitions_per_item
    )
  )


@contextlib.contextmanager
def _served(
  transitions_per_item: int, staging: pathlib.Path
) -> Iterator[reverb_server.ReplayServer]:
  """A server like a run's, but nobody waits for anybody."""
  builder = _make_builder(transitions_per_item)
  (table,) = builder.make_replay_tables(learner_benchmark.make_spec())
  server = reverb_server.ReplayServer(
    [table.replace(rate_limiter=reverb.rate_limiters.MinSize(1))], staging
  )
  try:
    yield server
  finally:
    server.stop()


class _SeparateServer:
  """A server in a process of its own, which takes some seconds to start."""

  def __init__(self, transitions_per_item: int, staging: pathlib.Path):
    self._process = subprocess.Popen(
      [
        *(sys.executable, "-m", __name__),
        *(str(transitions_per_item), str(staging)),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  @property
  def pid(self) -> int:
    """Its process."""
    return self._process.pid

  def connect(self) -> reverb.Client:
    """Waits until it serves."""
    output = self._process.stdout
    assert output is not None
    # Whatever else the libraries print comes before.
    line = next(line for line in output if line.startswith("address "))
    return reverb.Client(line.split()[1])

  def stop(self) -> None:
    """Stops it."""
    self._process.communicate()


def measure(
  num_transitions: int,
  seconds: float,
  folder: pathlib.Path,
  transitions_per_item: int = 1,
) -> dict[str, Any]:
  """Measures replay in a server in this process, and in one in another.

  Args:
    num_transitions: how many are inserted.
    seconds: how long each sampling is measured.
    folder: on the disk that they are saved to.
    transitions_per_item: how many are stored together.

  Returns:
    What there is to say of it.
  """
  found = {}
  with tempfile.TemporaryDirectory(dir=folder) as staging:
    stagings = {name: pathlib.Path(staging, name) for name in ("here", "there")}
    separate = _SeparateServer(transitions_per_item, stagings["there"])
    try:
      builder = _make_builder(transitions_per_item)
      waiting = replay.Waiting(builder)

      def measure_one(
        client: reverb.Client, staging: pathlib.Path, pid: int | None
      ) -> dict[str, float]:
        return replay.measure(
          builder,
          waiting,
          client,
          lambda path, _: reverb_server.save(client, staging, path),
          num_transitions,
          seconds,
          folder,
          pid,
        )

      # It has started before anything is measured.
      client = separate.connect()
      with _served(transitions_per_item, stagings["here"]) as server:
        found["local"] = measure_one(server.client, stagings["here"], None)
      found["separate"] = measure_one(client, stagings["there"], separate.pid)
    finally:
      separate.stop()
  return found


if __name__ == "__main__":
  with _served(int(sys.argv[1]), pathlib.Path(sys.argv[2])) as served:
    print(f"address {served.address}", flush=True)
    sys.stdin.read()
