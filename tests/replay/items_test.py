"""Which transitions are drawn of items of several."""

from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from acme_qsm.replay.items import draw_of_items


class Sample(NamedTuple):
  """What Reverb gives."""

  info: int
  data: Any


def make_samples():
  """Two batches of four items of three transitions of two numbers."""
  for i in range(2):
    data = 100 * i + np.arange(24, dtype=np.float32).reshape(4, 6)
    yield Sample(info=i, data=data)


def draw(size, seed):
  return list(draw_of_items(make_samples(), size, jax.random.key(seed)))


def test_the_same_samples_and_key_give_the_same_draws():
  draws = [np.stack([each.data for each in draw(2, 0)]) for _ in range(2)]
  np.testing.assert_array_equal(*draws)
  # One of 3^8 draws is this by chance.
  other = np.stack([each.data for each in draw(2, 1)])
  assert not np.array_equal(draws[0], other)
  # Whole transitions, each of its own item, and batches are not drawn alike.
  first, second = draws[0], draws[0][1] - 100
  assert first.shape == (2, 4, 2)
  assert np.all(first[0][:, 1] == first[0][:, 0] + 1)
  np.testing.assert_array_equal(first[0][:, 0] // 6, np.arange(4))
  assert not np.array_equal(first[0], second)


def test_old_and_new_keys_are_taken():
  old = draw_of_items(make_samples(), 2, jax.random.PRNGKey(0))
  for ours, theirs in zip(draw(2, 0), old, strict=True):
    np.testing.assert_array_equal(ours.data, theirs.data)
    assert ours.info == theirs.info


def test_of_single_transitions_nothing_is_drawn():
  for drawn, sample in zip(draw(6, 0), make_samples(), strict=True):
    np.testing.assert_array_equal(drawn.data, sample.data)
