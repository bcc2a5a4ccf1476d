"""The process that holds replay: a Reverb server."""

import contextlib
import logging
import time

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.experiments.records import run_records
from acme_qsm.replay import reverb_server
from acme_qsm.replay.listening import addresses


def run_replay(run: Run, link: Link) -> None:
  """Serves replay until the run is over."""
  link.state = "starting its server"
  with contextlib.ExitStack() as stack:
    server = _serve(run, link)
    stack.callback(server.stop)
    # Who is connected to it sees at once when this process ends.
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
      time.sleep(POLL_SECONDS)


def _serve(run: Run, link: Link) -> reverb_server.ReplayServer:
  """Starts the server, with what the last checkpoint holds of replay."""
  content = run_records.replay_content(run.records.latest_checkpoint())

  def serve(port: int | None) -> reverb_server.ReplayServer:
    return reverb_server.ReplayServer(
      run.parts.tables(),
      staging=reverb_server.staging_folder(run.path) if run.path else None,
      checkpoint=content,
      host=run.host,
      port=port,
      run_id=run.run_id,
    )

  # Where it was before, if it was: there its clients wait for it.
  before = link.orders.addresses.get("replay")
  host, port = addresses.split(before) if before else ("", 0)
  if host != run.host:
    return serve(None)
  try:
    return serve(port)
  except ValueError as error:
    logging.warning("Replay cannot be where it was: %s", error)
    return serve(None)
