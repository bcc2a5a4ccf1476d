"""The axis of seeds: many seeds' arrays in one, and one seed's as they are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class SeedAxis:
  """The first axis [S, ...] of the arrays of several seeds.

  The arrays of one seed do not have it, so that its programs are those of a
  single learner to the last bit: a function that is mapped over an axis of size
  one may sum in another order. This class is the one place that knows.

  Attributes:
    size: S, the number of seeds, at least 1.
  """

  size: int

  def map(
    self, function: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0
  ) -> Callable[..., Any]:
    """One seed's function, of all seeds: see `jax.vmap`."""
    if self.size == 1:
      return function
    return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

  def stack(self, trees: Sequence[Any]) -> Any:
    """Makes one tree of each seed's, of JAX's or numpy's arrays."""
    if self.size == 1:
      return trees[0]
    leaves = jax.tree.leaves(trees[0])
    if all(isinstance(leaf, np.ndarray) for leaf in leaves):
      return jax.tree.map(lambda *each: np.stack(each), *trees)
    return jax.jit(_stack)(*trees)

  def take(self, tree: Any, index: int) -> Any:
    """One seed's of what `stack` made; on the device, like the next two.

    To fetch all seeds' parameters takes as many times as long as one's.
    """
    return tree if self.size == 1 else self._take(tree, index)

  def put(self, tree: Any, index: int, one: Any) -> Any:
    """What `stack` made, in which one seed's is another."""
    return one if self.size == 1 else self._put(tree, index, one)

  def where(self, chosen: Sequence[bool], new: Any, old: Any) -> Any:
    """The new tree's of the seeds that are chosen [S], else the old one's."""
    if all(chosen):
      return new
    return self._where(np.array(chosen), new, old) if any(chosen) else old

  def rows(self, array: Any) -> np.ndarray:
    """Fetches an array; with the seeds' axis, of one seed's as well."""
    fetched = np.asarray(array)
    return fetched[np.newaxis] if self.size == 1 else fetched

  def pick(self, values: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """One seed's values [] by name; of several, fetched when they are read."""
    return values if self.size == 1 else _OneSeed(values, index)

  # Made once, so that JAX compiles each once, for whichever seed.
  @functools.cached_property
  def _take(self) -> Callable[..., Any]:
    return jax.jit(
      lambda tree, index: jax.tree.map(lambda leaves: leaves[index], tree)
    )

  @functools.cached_property
  def _put(self) -> Callable[..., Any]:
    return jax.jit(
      lambda tree, index, one: jax.tree.map(
        lambda leaves, leaf: leaves.at[index].set(leaf), tree, one
      )
    )

  @functools.cached_property
  def _where(self) -> Callable[..., Any]:
    return jax.jit(
      jax.vmap(
        lambda chosen, new, old: jax.tree.map(
          lambda x, y: jnp.where(chosen, x, y), new, old
        )
      )
    )


def _stack(*trees: Any) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


class _OneSeed(Mapping[str, Any]):
  """One seed's values [] of several seeds' [S], fetched when they are read."""

  def __init__(self, values: Mapping[str, jax.Array], index: int):
    self._values = values
    self._index = index

  def __getitem__(self, name: str) -> Any:
    return np.asarray(self._values[name])[self._index]

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)
