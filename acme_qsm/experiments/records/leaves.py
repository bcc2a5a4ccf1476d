"""A tree's leaves as plain arrays by their paths, and back."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import types

_ITEM_NAME = re.compile(r"\w+", re.ASCII)


def _is_typed_key(leaf: Any) -> bool:
  return hasattr(leaf, "dtype") and jnp.issubdtype(
    leaf.dtype, jax.dtypes.prng_key
  )


def to_arrays(item: str, tree: Any) -> dict[str, np.ndarray]:
  """Returns a tree's leaves as arrays by their paths; raises as `save`."""
  if not _ITEM_NAME.fullmatch(item):
    raise ValueError(
      f"An item's name is made of letters, digits and _, got {item!r}."
    )
  arrays = {}
  for key_path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    name = jax.tree_util.keystr(key_path)
    array = np.asarray(
      jax.random.key_data(leaf) if _is_typed_key(leaf) else leaf
    )
    # What np.load can bring back without running code.
    if array.dtype.kind not in "biufc":
      raise TypeError(
        f"Leaf {name!r} of item {item!r} has dtype {array.dtype}, which cannot "
        "be saved: save numbers."
      )
    if not np.all(np.isfinite(array)):
      raise types.NonFiniteError(
        f"Leaf {name!r} of item {item!r} is not finite; nothing was saved."
      )
    arrays[name] = array
  return arrays


def restore(array: np.ndarray, leaf: Any) -> Any:
  """Turns a saved array into a leaf like `leaf`; ValueError if it is not."""
  is_number = isinstance(leaf, bool | int | float | complex)
  wanted = np.asarray(leaf) if is_number else leaf
  if _is_typed_key(leaf):
    wanted = jax.eval_shape(jax.random.key_data, leaf)
  # Where one state has a Python number a later one may have an array, as with
  # the steps of Acme's TD3.
  found = array.dtype.kind if is_number else array.dtype
  expected = wanted.dtype.kind if is_number else wanted.dtype
  if (array.shape, found) != (wanted.shape, expected):
    raise ValueError(
      f"expected {wanted.dtype} {wanted.shape}, found {array.dtype} "
      f"{array.shape}."
    )
  if is_number:
    return type(leaf)(array.item())
  if _is_typed_key(leaf):
    return jax.random.wrap_key_data(
      jnp.array(array), impl=jax.random.key_impl(leaf)
    )
  if isinstance(leaf, np.ndarray | np.generic):
    return array if isinstance(leaf, np.ndarray) else array[()]
  # A copy: its buffer may be donated.
  return jnp.array(array)
