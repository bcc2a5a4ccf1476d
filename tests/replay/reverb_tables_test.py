"""The table's limiter never stops a run."""

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import numpy as np
import pytest

from acme_qsm.replay import pacing
from acme_qsm.replay import reverb_tables
from acme_qsm.replay.codec import TransitionCodec

pytestmark = pytest.mark.acme


def draw_config(rng, make_config):
  """Any configuration whose run is short."""

  def geometric(low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))

  batch_size = round(geometric(1, 60))
  # Large items of which few fill replay are where the window is tight.
  min_replay_size = batch_size + round(geometric(1, 30)) - 1
  return make_config(
    batch_size=batch_size,
    num_sgd_steps_per_step=int(rng.integers(1, 4)),
    n_step=round(geometric(1, 20)),
    min_replay_size=min_replay_size,
    max_replay_size=min_replay_size + int(rng.integers(3)) * 20,
    samples_per_insert=geometric(0.3, 30),
    samples_per_insert_tolerance=geometric(0.001, 1),
    transitions_per_item=round(geometric(1, 60)),
  )


class Limited:
  """A real table, of which nothing is asked that its limiter would not give."""

  def __init__(self, table, client, codec, config):
    self._table = table
    self._client = client
    self._item = np.zeros(config.transitions_per_item * codec.size, np.float32)
    self.name = table.name
    self.inserts = 0
    self.samples = 0

  def can_insert(self):
    return self._table.can_insert(1)

  def can_sample(self, count):
    return self._table.can_sample(count)

  def insert(self):
    assert self.can_insert(), (self.inserts, self.samples)
    self._client.insert(self._item, {self.name: 1.0})
    self.inserts += 1

  def sample(self, count):
    assert self.can_sample(count), (self.inserts, self.samples, count)
    for _ in self._client.sample(self.name, count):
      pass
    self.samples += count


def run_in_turn(rng, config, table):
  """Acts and learns in turn as a run in one process does."""
  pace = pacing.make_pace(config)
  batch = config.batch_size * config.num_sgd_steps_per_step
  waiting, due = 0, 0.0
  num_steps = config.min_replay_size + 3 * config.transitions_per_item
  length = 0
  for _ in range(num_steps):
    while table.samples < due:
      table.sample(batch)
    length += 1
    waiting += 1
    if rng.random() < 0.1:
      # The episode ends.
      waiting += min(config.n_step, length) - 1
      length = 0
    while waiting >= config.transitions_per_item:
      table.insert()
      waiting -= config.transitions_per_item
    due = pace.num_samples_due(table.inserts)
  assert due > 0


def run_beside_each_other(table, pace):
  """Inserts as long as it can be, and samples as long as that can be."""
  for _ in range(2):
    before = table.inserts, table.samples
    while table.can_insert():
      table.insert()
    for count in (100, 1):
      while table.can_sample(count):
        table.sample(count)
    assert table.inserts > before[0]
    assert table.samples > before[1]
  drift = table.inserts * pace.samples_per_insert - table.samples - pace.middle
  assert abs(drift) <= pace.half_width + 1e-6 * table.samples


@pytest.mark.parametrize(
  ("beside", "count"),
  [
    (False, 30),
    pytest.param(False, 150, marks=pytest.mark.slow),
    pytest.param(True, 30, marks=pytest.mark.slow),
  ],
)
def test_no_configuration_stops_for_ever(
  make_config, make_spec, serve, beside, count
):
  rng = np.random.default_rng(0)
  codec = TransitionCodec(make_spec())
  # Of few large items, the first that is sampled calls for seven batches.
  large_items = make_config(
    batch_size=256,
    samples_per_insert=50.0,
    transitions_per_item=32,
    min_replay_size=256,
  )
  configs = [draw_config(rng, make_config) for _ in range(count - 1)]
  configs.append(large_items)
  tables = [
    reverb_tables.make_table(
      codec,
      pacing.make_pace(config),
      config.max_replay_size,
      config.transitions_per_item,
    ).replace(name=str(i))
    for i, config in enumerate(configs)
  ]
  client = serve(*tables)
  for config, table in zip(configs, tables, strict=True):
    limited = Limited(table, client, codec, config)
    try:
      if beside:
        run_beside_each_other(limited, pacing.make_pace(config))
      else:
        run_in_turn(rng, config, limited)
    except AssertionError as error:
      raise AssertionError(f"It stops for ever: {config}") from error
