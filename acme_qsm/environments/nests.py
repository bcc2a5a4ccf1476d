"""Observations that may be nested: their arrays, and errors that name a part.

Needs numpy alone.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import numpy as np

from acme_qsm import specs as specs_lib
from acme_qsm.types import InvalidValueError

_USUAL = (np.float64, np.float32)
_ANY_FLOAT_HOLDS = float(np.finfo(np.float32).max)


def convert_array(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """An array in float32, float64 or int32; as it is if that cannot hold it."""
  # A fast answer for nearly all arrays: no entry's square exceeds their sum.
  if value.dtype in _USUAL and np.vdot(value, value) < _ANY_FLOAT_HOLDS:
    return value.astype(dtype)
  with np.errstate(over="raise"):
    try:
      converted = value.astype(dtype)
    except FloatingPointError:
      return value
  # An integer that does not fit is turned into another one.
  if dtype.kind == "i" and np.any(converted != value):
    return value
  return converted


def _like(sequence: Any, items: Iterable[Any]) -> Any:
  """A list, tuple or named tuple as another one is."""
  if hasattr(sequence, "_fields"):
    return type(sequence)(*items)
  return type(sequence)(items)


def require_numbers(spec: Any, path: str = "") -> Any:
  """Finds out whether observations are numbers.

  Args:
    spec: their spec, nested or not.
    path: where in all of them these are, such as "['arm'][0]".

  Returns:
    The spec, the keys of its dictionaries in order.

  Raises:
    ValueError: names what is not of numbers.
  """
  if isinstance(spec, Mapping):
    return {
      key: require_numbers(spec[key], f"{path}[{key!r}]")
      for key in _sorted(spec)
    }
  if isinstance(spec, list | tuple):
    return _like(
      spec,
      [require_numbers(each, f"{path}[{i}]") for i, each in enumerate(spec)],
    )
  if not specs_lib.is_array(spec) or np.dtype(spec.dtype).kind not in "biuf":
    raise ValueError(
      f"observations{path} must be numbers, got {specs_lib.in_a_line(spec)}: "
      "leave it out of what the environment gives."
    )
  return spec


def take_arrays(
  spec: Any, value: Any, step: int, path: tuple[Any, ...] = ()
) -> list[np.ndarray]:
  """Takes the arrays out of an observation.

  Args:
    spec: what the observation is to be, from `require_numbers`.
    value: the observation.
    step: the episode's.
    path: where in all of the observation this is, as keys and indices.

  Returns:
    The arrays, in the order and of the shapes of the spec.

  Raises:
    InvalidValueError: names what is not as the spec says.
  """
  if isinstance(spec, Mapping):
    if not isinstance(value, Mapping) or value.keys() != spec.keys():
      raise _other_than(path, step, _describe(value), _describe(spec))
    items: Iterable[Any] = spec.items()
  elif isinstance(spec, list | tuple):
    if not isinstance(value, list | tuple) or len(value) != len(spec):
      raise _other_than(path, step, _describe(value), _describe(spec))
    items = enumerate(spec)
  else:
    try:
      array = np.asarray(value)
    except ValueError:  # Lists of lists of different lengths.
      array = np.empty((), object)
    if array.dtype.kind not in "biuf":
      raise _other_than(path, step, _describe(value), "numbers")
    if array.shape != (shape := tuple(spec.shape)):
      raise _other_than(path, step, f"of shape {array.shape}", shape)
    return [array]
  arrays = []
  for key, each in items:
    arrays += take_arrays(each, value[key], step, (*path, key))
  return arrays


def _other_than(
  path: tuple[Any, ...], step: int, given: str, specified: Any
) -> InvalidValueError:
  """The error that says what an observation is in place of its spec's."""
  place = "".join(f"[{key!r}]" for key in path)
  return InvalidValueError(
    f"observation{place} is {specs_lib.in_a_line(given)} at step {step} of the "
    f"episode; the spec says {specs_lib.in_a_line(specified)}."
  )


def _describe(value: Any) -> str:
  """What is given, or what a spec says, in a few words."""
  if value is None:
    return "None"
  if isinstance(value, Mapping):
    return (
      f"a dictionary of {', '.join(map(repr, _sorted(value))) or 'nothing'}"
    )
  if isinstance(value, list | tuple):
    return f"a sequence of {len(value)}"
  return f"of {type(value).__name__}"


def _sorted(mapping: Mapping[Any, Any]) -> list[Any]:
  """Keys in order, also those of different types."""
  return sorted(mapping, key=lambda key: (type(key).__name__, key))


def map_leaves(
  function: Callable[[Any, Any], Any], spec: Any, value: Any
) -> Any:
  """Applies a function to what may be nested, array by array.

  Args:
    function: (spec, value) -> value; the spec is None of what it lacks.
    spec: what the value is to be.
    value: of whose dictionaries, lists and tuples the result has the same.

  Returns:
    The results, each in its place.
  """
  if isinstance(value, Mapping):
    fields = spec if isinstance(spec, Mapping) else {}
    return {
      key: map_leaves(function, fields.get(key), each)
      for key, each in value.items()
    }
  if isinstance(spec, list | tuple) and isinstance(value, list | tuple):
    pairs = zip(spec, value, strict=False)
    return _like(spec, [map_leaves(function, *each) for each in pairs])
  return function(spec, value)
