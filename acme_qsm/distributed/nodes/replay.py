"""The process that holds replay: a Reverb server."""

import contextlib
import logging
import time

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.distributed_run import DistributedRun
from acme_qsm.experiments.records import run_records
from acme_qsm.replay import reverb_server
from acme_qsm.replay.listening import addresses

_POLL_SECONDS = 0.2


def work(run: DistributedRun, link: Link) -> None:
  """Serves replay until the run is over."""
  link.state = "starting its server"
  with contextlib.ExitStack() as stack:
    server = _serve(run, link.address_of("replay"))
    stack.callback(server.stop)
    # Clients that are tied to this server see at once when its process ends.
    ties = rpc.Server({}, run.key, run.host)
    stack.callback(ties.stop)
    link.call("announce", "replay_tie", ties.address)
    link.call("announce", "replay", server.address)
    link.state = "serving"
    while not (link.over or link.evicted):
      info = server.info()
      limiter = info.rate_limiter_info
      link.metrics = {
        "size": info.current_size,
        "inserts": limiter.insert_stats.completed,
        "samples": limiter.sample_stats.completed,
      }
      time.sleep(_POLL_SECONDS)


def _serve(
  run: DistributedRun, before: str | None
) -> reverb_server.ReplayServer:
  """Starts the server, with what the last checkpoint holds of replay.

  Args:
    run: the run.
    before: where this run's replay was before, if it was. Its clients wait for
      it there, so that it is served there again unless that cannot be.
  """
  content = run_records.replay_content(run.records().latest_checkpoint())

  def serve(port: int | None) -> reverb_server.ReplayServer:
    return reverb_server.ReplayServer(
      run.parts.tables(),
      staging=reverb_server.staging_folder(run.folder) if run.folder else None,
      checkpoint=content,
      host=run.host,
      port=port,
      run_id=run.run_id,
    )

  host, port = addresses.split(before) if before else ("", 0)
  if host != run.host:
    return serve(None)
  try:
    return serve(port)
  except ValueError as error:
    logging.warning("Replay cannot be where it was: %s", error)
    return serve(None)
