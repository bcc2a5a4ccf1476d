"""Tests of fetching ahead."""

import threading

import pytest

from acme_qsm import prefetching


def test_all_elements_in_order_and_then_the_end():
  fetched = prefetching.Prefetched(iter(range(100)))
  assert list(fetched) == list(range(100))
  with pytest.raises(StopIteration):
    next(fetched)


def test_the_next_element_is_fetched_unasked_but_no_more():
  asked = [threading.Event() for _ in range(4)]

  def elements():
    for i, event in enumerate(asked):
      event.set()
      yield i

  fetched = prefetching.Prefetched(elements())
  assert not asked[0].is_set()
  assert next(fetched) == 0
  assert asked[1].wait(timeout=60)
  assert not asked[2].is_set()
  assert next(fetched) == 1
  assert asked[2].wait(timeout=60)
  assert not asked[3].is_set()


def test_errors_come_after_what_was_before_them_and_stay():
  def elements():
    yield 1
    raise ConnectionError("Replay is gone.")

  fetched = prefetching.Prefetched(elements())
  assert next(fetched) == 1
  for _ in range(2):
    with pytest.raises(ConnectionError, match="Replay is gone"):
      next(fetched)
