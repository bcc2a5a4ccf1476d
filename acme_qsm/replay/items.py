"""Draws a transition of each sampled item of several. Needs JAX alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np


def draw_of_items(
  samples: Iterator[Any], size: int, random_key: jax.Array
) -> Iterator[Any]:
  """Draws one transition of each sampled item, each as likely as the others.

  The same samples and key give the same draws. A run's seed reproduces no more
  of samples from Reverb, which draws items without a seed, and gives them when
  it can.

  Args:
    samples: named tuples whose `data` [batch, K D] are items of K packed
      transitions.
    size: D, the numbers of a packed transition.
    random_key: PRNG key of the draws, which it alone determines; it is not
      used up by them.

  Returns:
    The samples, their `data` [batch, D] of one packed transition each; those of
    single transitions as they are.
  """
  # On the host: it is numpy's to pick rows of what comes from replay.
  random = np.random.default_rng(np.asarray(jax.random.key_data(random_key)))

  def draw(sample: Any) -> Any:
    num_items, width = sample.data.shape
    # Of another size altogether: whoever unpacks it says so.
    if width == size or width % size:
      return sample
    items = sample.data.reshape(num_items, -1, size)
    drawn = random.integers(items.shape[1], size=num_items)
    return sample._replace(data=items[np.arange(num_items), drawn])

  return map(draw, samples)
