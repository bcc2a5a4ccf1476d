"""The learner of several seeds against one learner for each."""

import jax
import numpy as np
import pytest

import acme_qsm
from acme_qsm import types
from acme_qsm.agents import learner as learning
from acme_qsm.agents import seeds_learner
from acme_qsm.core import LearnerCore
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import Sample

BATCH_SIZE = 8


class _Rows:
  """Keeps what is written, and counts nothing."""

  def __init__(self):
    self.rows = []

  def write(self, data):
    self.rows.append({name: float(value) for name, value in data.items()})

  def increment(self, **counts):
    return counts


@pytest.fixture(scope="module")
def codec(make_spec):
  return TransitionCodec(make_spec())


@pytest.fixture(scope="module")
def learner_core(make_spec, make_config) -> LearnerCore:
  # Half of the steps have no update of the policy.
  config = make_config(batch_size=BATCH_SIZE, policy_update_period=2)
  networks = acme_qsm.make_networks(make_spec(), config)
  return acme_qsm.make_learner_core(networks, config)


def _samples(codec, seed, bad_at=None):
  rng = np.random.default_rng(seed)
  number = 0
  while True:
    data = rng.uniform(-1, 1, (BATCH_SIZE, codec.size)).astype(np.float32)
    if number == bad_at:
      data[:] = np.nan
    yield Sample(data, np.arange(BATCH_SIZE))
    number += 1


def _records(codec, bad_at=None):
  return [
    seeds_learner.SeedRecords(
      random_key=jax.random.PRNGKey(seed),
      dataset=_samples(codec, seed, bad_at if seed == 1 else None),
      counter=(rows := _Rows()),
      logger=rows,
      name=f"seed {seed}",
    )
    for seed in range(3)
  ]


@pytest.mark.parametrize("by_turns", [True, False])
def test_each_seed_makes_its_own_steps(learner_core, codec, by_turns):
  records = _records(codec)
  together = seeds_learner.SeedsLearner(
    learner_core, records, codec.unpack, by_turns=by_turns
  )
  rows = [_Rows() for _ in records]
  alone = [
    learning.DiffusionLearner(
      learner_core,
      jax.random.PRNGKey(seed),
      _samples(codec, seed),
      codec.unpack,
      counter=rows[seed],
      logger=rows[seed],
    )
    for seed in range(3)
  ]
  for parts in (
    (True, True, True),
    (True, True, True),
    (True, False, True),
    (False, False, True),
    (True, True, True),
  ):
    together.step(parts)
    for learner, takes_part in zip(alone, parts, strict=True):
      if takes_part:
        learner.step()
  for seed, learner in zip(together.seeds, alone, strict=True):
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
      seed.save(),
      learner.save(),
    )
  assert [int(each.save().steps) for each in together.seeds] == [4, 3, 5]
  for record, expected in zip(records, rows, strict=True):
    found = record.logger.rows
    assert len(found) == len(expected.rows)
    for row, wanted in zip(found, expected.rows, strict=True):
      assert list(row) == list(wanted)
      for name in set(row) - {"walltime"}:
        np.testing.assert_allclose(
          row[name], wanted[name], rtol=1e-2, atol=1e-4, err_msg=name
        )


def test_a_restored_seed_leaves_the_others_as_they_are(learner_core, codec):
  together = seeds_learner.SeedsLearner(
    learner_core, _records(codec), codec.unpack
  )
  first = together.seeds[0].save()
  together.step([True] * 3)
  others = [seed.save() for seed in together.seeds[1:]]
  together.seeds[0].restore(first)
  jax.tree.map(
    np.testing.assert_array_equal,
    [seed.save() for seed in together.seeds],
    [first, *others],
  )


def test_a_nan_names_its_seed(learner_core, codec):
  together = seeds_learner.SeedsLearner(
    learner_core, _records(codec, bad_at=1), codec.unpack
  )
  together.step([True] * 3)
  together.step([False, True, True])
  with pytest.raises(
    types.NonFiniteError, match=r"^seed 1: .* is nan after learner step 2\.$"
  ):
    together.seeds[0].save()
