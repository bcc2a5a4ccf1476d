"""The process that holds replay: a Reverb server."""

import logging
import time

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination.link import Link
from acme_qsm.distributed.nodes.run import POLL_SECONDS
from acme_qsm.distributed.nodes.run import Run
from acme_qsm.replay import reverb_server
from acme_qsm.replay.listening import addresses


def run_replay(run: Run, link: Link) -> None:
  """Serves replay until the run is over."""
  experiment = run.experiment
  builder = experiment.builder
  spec = run.environment_spec
  networks = experiment.network_factory(spec)
  policy = builder.make_policy(networks, spec, evaluation=False)
  checkpointer = run.checkpointer()
  checkpoint = checkpointer.latest() if checkpointer else None
  content = checkpoint.path / "replay" if checkpoint else None
  if content is not None and not content.is_dir():
    logging.warning("The checkpoint has no replay content: it fills anew.")
    content = None

  def serve(port: int | None) -> reverb_server.ReplayServer:
    return reverb_server.ReplayServer(
      builder.make_replay_tables(spec, policy),
      staging=reverb_server.staging_folder(run.path) if run.path else None,
      checkpoint=content,
      host=run.host,
      port=port,
      run_id=run.run_id,
    )

  # Where it was before, if it was: there its clients wait for it.
  before = link.orders.addresses.get("replay")
  host, port = addresses.split(before) if before else ("", 0)
  try:
    server = serve(port if host == run.host else None)
  except ValueError as error:
    if host != run.host:
      raise
    logging.warning("Replay cannot be where it was: %s", error)
    server = serve(None)
  # Who is connected to it sees at once when this process ends.
  ties = rpc.Server({}, run.key, run.host)
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
  server.stop()
  ties.stop()
