"""Reverb's table of transitions, and the batches that come out of it."""

import math
import sys
from collections.abc import Iterator
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import jax
import numpy as np
import reverb
import tensorflow as tf

from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.pacing import Pace

TABLE = "transitions"
"""The name of the Reverb table that transitions are written to."""

# Reverb counts them in 32 bits.
_MAX_ITEMS = 2**31 - 1
# What Reverb keeps beside the data, as measured with one, two, three and five
# columns of 32 to 16,000 bytes each.
_ITEM_BYTES = 500
_CHUNK_BYTES = 1_070


def make_signature(
  codec: TransitionCodec, transitions_per_item: int = 1
) -> tf.TensorSpec:
  """The signature of a table of packed transitions."""
  return tf.TensorSpec((transitions_per_item * codec.size,), tf.float32)


def make_table(
  codec: TransitionCodec,
  pace: Pace,
  max_replay_size: int,
  transitions_per_item: int = 1,
) -> reverb.Table:
  """Makes the table of transitions, sampled uniformly, the oldest removed.

  Args:
    codec: packs the transitions.
    pace: samples per insert of an item, which the table's limiter holds.
    max_replay_size: transitions at most, rounded up to whole items.
    transitions_per_item: transitions stored together.

  Returns:
    The table.

  Raises:
    ValueError: if Reverb cannot hold as many.
  """
  max_size = math.ceil(max_replay_size / transitions_per_item)
  if max_size > _MAX_ITEMS:
    raise ValueError(
      f"max_replay_size must be at most {_MAX_ITEMS:,} items for Reverb, got "
      f"{max_size:,}."
    )
  return reverb.Table(
    name=TABLE,
    sampler=reverb.selectors.Uniform(),
    remover=reverb.selectors.Fifo(),
    max_size=max_size,
    rate_limiter=reverb.rate_limiters.SampleToInsertRatio(
      samples_per_insert=pace.samples_per_insert,
      min_size_to_sample=pace.min_size,
      error_buffer=(
        pace.middle - pace.half_width,
        pace.middle + pace.half_width,
      ),
    ),
    signature=make_signature(codec, transitions_per_item),
  )


def get_pace(table: reverb.Table) -> Pace:
  """The pace that a table's limiter holds."""
  limiter = table.info.rate_limiter_info
  return Pace(
    samples_per_insert=limiter.samples_per_insert,
    min_size=limiter.min_size_to_sample,
    middle=(limiter.max_diff + limiter.min_diff) / 2.0,
    half_width=(limiter.max_diff - limiter.min_diff) / 2.0,
  )


def require_ratio(table: reverb.Table) -> None:
  """Raises ValueError unless a table's limiter holds samples per insert."""
  limiter = table.info.rate_limiter_info
  if limiter.max_diff >= sys.float_info.max:
    raise ValueError(
      f"The rate limiter of table {table.name!r} must hold samples per insert "
      "(reverb.rate_limiters.SampleToInsertRatio): it sets how many learner "
      "steps follow an environment step."
    )


def max_bytes(table: reverb.Table) -> int:
  """The memory in bytes that a table's items take when it is full.

  That of data that cannot be compressed. Reverb keeps more than the data: an
  entry in the table for each item, and a chunk for each of its columns.

  Args:
    table: the table; without a signature its items are taken to be empty.

  Returns:
    What the process that serves it grows by.
  """
  columns = [
    int(np.prod([size or 1 for size in spec.shape])) * spec.dtype.size
    for spec in jax.tree.leaves(table.info.signature)
    if spec is not None
  ]
  item = _ITEM_BYTES + sum(_CHUNK_BYTES + column for column in columns)
  return table.info.max_size * item


def write_item(
  writer: reverb.TrajectoryWriter,
  table: str,
  item: np.ndarray,
  num_in_flight: int,
) -> None:
  """Writes an item of one column.

  Args:
    writer: the writer.
    table: the name of the table.
    item: the item.
    num_in_flight: items sent but not yet confirmed, at most, when it returns.
  """
  writer.append(item)
  history: Any = writer.history
  writer.create_item(table, priority=1.0, trajectory=history[-1])
  writer.flush(num_in_flight)


def make_dataset_iterator(
  client: reverb.Client, batch_size: int
) -> Iterator[reverb.ReplaySample]:
  """Makes an iterator over batches of packed items.

  Args:
    client: the replay server's client.
    batch_size: items sampled for each batch.

  Returns:
    An iterator over samples whose `data` is a numpy array [batch_size, D], D
    the numbers of an item; the next one is fetched while one is in use. Which
    items those are, Reverb draws, which takes no seed.
  """
  dataset = reverb.TrajectoryDataset.from_table_signature(
    server_address=client.server_address,
    table=TABLE,
    max_in_flight_samples_per_worker=batch_size,
    num_workers_per_iterator=1,
  )
  dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(1)
  # The update needs the cores more than TensorFlow's thread pool does.
  options = tf.data.Options()
  options.threading.private_threadpool_size = 1
  options.deterministic = True
  return dataset.with_options(options).as_numpy_iterator()
