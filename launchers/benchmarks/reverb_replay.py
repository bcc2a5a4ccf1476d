"""How fast replay in Reverb is, in this process and in another."""

import contextlib
import multiprocessing
import pathlib
import tempfile
from multiprocessing import connection
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import reverb

from acme_qsm.replay import reverb_server
from launchers.benchmarks import replay
from launchers.benchmarks import subject


def _serve(
  transitions_per_item: int, staging: pathlib.Path
) -> reverb_server.ReplayServer:
  """A server like a run's, of an empty table, which makes nobody wait."""
  builder = replay.make_builder(transitions_per_item)
  (table,) = builder.make_replay_tables(subject.SPEC)
  return reverb_server.ReplayServer(
    [table.replace(rate_limiter=reverb.rate_limiters.MinSize(1))], staging
  )


def _serve_until_told(
  transitions_per_item: int, staging: pathlib.Path, pipe: connection.Connection
) -> None:
  server = _serve(transitions_per_item, staging)
  pipe.send(server.address)
  with contextlib.suppress(EOFError):
    pipe.recv()
  server.stop()


def measure(
  num_transitions: int,
  seconds: float,
  folder: pathlib.Path,
  transitions_per_item: int = 1,
) -> dict[str, dict[str, float]]:
  """Measures replay in a server in this process, and in one in another.

  The arguments are those of `replay.measure_embedded`.
  """
  builder = replay.make_builder(transitions_per_item)
  waiting = replay.Waiting(builder)

  def measure_one(
    address: str, staging: pathlib.Path, pid: int | None
  ) -> dict[str, Any]:
    client = reverb.Client(address)
    return replay.measure_client(
      builder,
      waiting,
      client,
      lambda path, _: reverb_server.save(client, staging, path),
      num_transitions,
      seconds,
      folder,
      pid,
    )

  with tempfile.TemporaryDirectory(dir=folder) as staging:
    here, there = pathlib.Path(staging, "here"), pathlib.Path(staging, "there")
    spawn = multiprocessing.get_context("spawn")
    pipe, their_pipe = spawn.Pipe()
    process = spawn.Process(
      target=_serve_until_told, args=(transitions_per_item, there, their_pipe)
    )
    process.start()
    their_pipe.close()
    try:
      # It has started before anything is measured.
      address = pipe.recv()
      server = _serve(transitions_per_item, here)
      try:
        found = {", local": measure_one(server.address, here, None)}
      finally:
        server.stop()
      found[", separate"] = measure_one(address, there, process.pid)
    finally:
      pipe.close()
      process.join()
  return found
