"""Fetching the next element while one is in use."""

import queue
import threading
from collections.abc import Iterator
from typing import Any
from typing import TypeVar

T = TypeVar("T")


class Prefetched(Iterator[T]):
  """An iterator's elements, of which a thread fetches one ahead.

  The thread starts with the first request. What the iterator raises, requests
  raise from then on.
  """

  def __init__(self, iterator: Iterator[T]):
    """Initialises it.

    Args:
      iterator: who else uses it gets in the thread's way.
    """
    self._iterator = iterator
    # One and no more is fetched ahead: those are lost when a run is cut off.
    self._wanted = threading.Semaphore(0)
    self._fetched: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue()
    self._started = False
    self._end: BaseException | None = None

  def __next__(self) -> T:
    if self._end is not None:
      raise self._end
    if not self._started:
      self._started = True
      self._wanted.release()
      threading.Thread(
        target=_fetch,
        args=(self._iterator, self._wanted, self._fetched),
        name="prefetching",
        daemon=True,
      ).start()
    element, self._end = self._fetched.get()
    if self._end is not None:
      raise self._end
    self._wanted.release()
    return element


def _fetch(
  iterator: Iterator[Any], wanted: threading.Semaphore, fetched: queue.Queue
) -> None:
  try:
    while True:
      wanted.acquire()
      fetched.put((next(iterator), None))
  except BaseException as error:  # The consumer's to raise.
    fetched.put((None, error))
