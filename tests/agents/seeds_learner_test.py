"""The learner of several seeds against one learner for each."""

import dataclasses

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


class _Extras:
  """Keeps what is written."""

  def __init__(self):
    self.written = []

  def refresh(self, sample):
    return sample

  def write_extras(self, indices, extras):
    self.written.append((indices, extras))


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
    learner_core, records, codec, by_turns=by_turns
  )
  rows = [_Rows() for _ in records]
  alone = [
    learning.DiffusionLearner(
      learner_core,
      jax.random.PRNGKey(seed),
      _samples(codec, seed),
      codec,
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


@pytest.mark.parametrize("num_sgd_steps", [1, 2])
def test_new_extras_are_written_once_a_step_is_done(
  make_spec, make_config, num_sgd_steps
):
  # Each seed's, in turn with its steps, as by a learner of its own; from each
  # sampled action to the moved one.
  config = make_config(
    "dipo",
    batch_size=BATCH_SIZE // num_sgd_steps,
    num_action_moves=1,
    action_learning_rate=0.25,
  )
  networks = acme_qsm.make_networks(make_spec(), config)
  core = acme_qsm.make_learner_core(networks, config)
  extras_spec = acme_qsm.make_policy(networks, config).extras_spec
  codec = TransitionCodec(make_spec(), extras_spec)
  replays = [_Extras(), _Extras()]
  written = [replay.written for replay in replays]
  records = [
    dataclasses.replace(
      record,
      dataset=_samples(codec, 0),
      random_key=jax.random.PRNGKey(0),
      replay=replays[0],
    )
    for record in _records(codec)[:2]
  ]
  together = seeds_learner.SeedsLearner(
    core, records, codec, num_sgd_steps_per_step=num_sgd_steps
  )
  alone = learning.DiffusionLearner(
    core,
    jax.random.PRNGKey(0),
    _samples(codec, 0),
    codec,
    num_sgd_steps_per_step=num_sgd_steps,
    replay=replays[1],
  )
  together.step((True, True))
  together.step((False, True))
  alone.step()
  assert [len(each) for each in written] == [2, 0]
  together.seeds[1].save()
  alone.step()
  alone.save()
  alone.save()
  # The first step's of both seeds, the second's of one.
  assert [len(each) for each in written] == [3, 2]
  wanted = [written[1][0], written[1][0], written[1][1]]
  for found, expected in zip(written[0], wanted, strict=True):
    np.testing.assert_array_equal(found[0], np.arange(BATCH_SIZE))
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
  # Adam's first step is as long as its rate, within the box.
  before = next(_samples(codec, 0)).data[:, -1:]
  np.testing.assert_allclose(
    np.abs(written[1][0][1] - before)[np.abs(before) < 0.7], 0.25, rtol=1e-3
  )


def test_a_restored_seed_leaves_the_others_as_they_are(learner_core, codec):
  together = seeds_learner.SeedsLearner(learner_core, _records(codec), codec)
  first = together.seeds[0].save()
  together.step([True] * 3)
  others = [seed.save() for seed in together.seeds[1:]]
  together.seeds[0].restore(first)
  jax.tree.map(
    np.testing.assert_array_equal,
    [seed.save() for seed in together.seeds],
    [first, *others],
  )


def test_a_seed_s_state_is_all_that_is_fetched_or_sent(
  learner_core, codec, monkeypatch
):
  together = seeds_learner.SeedsLearner(learner_core, _records(codec), codec)
  together.step([True] * 3)
  expected = [seed.save() for seed in together.seeds]
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(expected[0]))
  moved = []

  def watch(function):
    def watched(state, *others):
      moved.append(sum(x.nbytes for x in jax.tree.leaves(state)))
      return function(state, *others)

    return watched

  for name in ("to_numpy", "from_numpy"):
    monkeypatch.setattr(learning, name, watch(getattr(learning, name)))
  for seed, state in zip(together.seeds, expected, strict=True):
    jax.tree.map(np.testing.assert_array_equal, seed.save(), state)
  together.seeds[1].restore(expected[2])
  jax.tree.map(
    np.testing.assert_array_equal, together.seeds[1].save(), expected[2]
  )
  assert moved == [size] * 5


def test_a_nan_names_its_seed(learner_core, codec):
  together = seeds_learner.SeedsLearner(
    learner_core, _records(codec, bad_at=1), codec
  )
  together.step([True] * 3)
  together.step([False, True, True])
  with pytest.raises(
    types.NonFiniteError, match=r"^seed 1: .* is nan after learner step 2\.$"
  ):
    together.seeds[0].save()
