"""What is in a replay, for tests."""


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
