"""What is in a replay, for tests."""

import numpy as np


def make_queue(name, signature):
  """A table that gives every item once, in order."""
  import acme_qsm.acme_compat  # noqa: F401  # isort: skip

  import reverb

  return reverb.Table.queue(name, max_size=10_000, signature=signature)


def take_all(client, table):
  """Takes all that the table holds out of it, in order."""
  size = client.server_info()[table].current_size
  if not size:
    return []
  samples = client.sample(
    table, size, emit_timesteps=False, unpack_as_table_signature=True
  )
  return [sample.data for sample in samples]


def rows_of(replay):
  """The rows [k, D] of a small embedded replay, the oldest first.

  That one of them is never drawn has a chance below 1e-6.
  """
  if not replay.size():
    return []
  sample = replay.sample(30 * replay.size())
  _, firsts = np.unique(sample.indices, return_index=True)
  assert len(firsts) == replay.size()
  return sample.data[firsts]
