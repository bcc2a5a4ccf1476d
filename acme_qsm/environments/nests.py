"""Observations that may be nested: taken apart, or named where they are wrong.

Needs numpy alone.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from acme_qsm import specs as specs_lib
from acme_qsm.types import InvalidValueError

_USUAL = (np.float64, np.float32)
_ANY_FLOAT_HOLDS = float(np.finfo(np.float32).max)


def convert_array(value: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """An array in float32, float64 or int32; as it is if that cannot hold it."""
  # Found out fast, of all that is usual: no part is larger than the whole.
  if value.dtype in _USUAL and np.vdot(value, value) < _ANY_FLOAT_HOLDS:
    return value.astype(dtype)
  with np.errstate(over="raise"):
    try:
      converted = value.astype(dtype)
    except FloatingPointError:
      return value
  # Integers that do not fit come out as others.
  if dtype.kind == "i" and np.any(converted != value):
    return value
  return converted


def like(sequence: Any, items: Iterable[Any]) -> Any:
  """A list, tuple or named tuple as another one is."""
  if hasattr(sequence, "_fields"):
    return type(sequence)(*items)
  return type(sequence)(items)


Taker = Callable[[Any, int, list[np.ndarray]], Any]
"""(observation, the episode's step, a list) -> the observation as floats.

It adds the observation's arrays to the list.
"""


def make_taker(spec: Any, path: str = "") -> Taker:
  """Makes what takes observations of a spec, nested or not.

  Args:
    spec: their spec.
    path: where in all of them these are, such as "['arm'][0]".

  Returns:
    What turns each of their arrays into floats, and raises InvalidValueError,
    which names it, for one that is not what the spec says.

  Raises:
    ValueError: if the spec is not of numbers.
  """
  if isinstance(spec, Mapping):
    return _mapping_taker(spec, path)
  if isinstance(spec, list | tuple):
    return _sequence_taker(spec, path)
  if not specs_lib.is_array(spec) or np.dtype(spec.dtype).kind not in "biuf":
    raise ValueError(
      f"observations{path} must be numbers, got {specs_lib.in_a_line(spec)}: "
      "leave it out of what the environment gives."
    )
  shape, dtype = tuple(spec.shape), float_dtype(spec.dtype)

  def take(value: Any, step: int, arrays: list[np.ndarray]) -> np.ndarray:
    try:
      array = np.asarray(value)
    except ValueError:  # Lists of lists of different lengths.
      array = np.empty((), object)
    if array.dtype.kind not in "biuf":
      raise other_than(path, step, describe(value), "numbers")
    if array.shape != shape:
      raise other_than(path, step, f"of shape {array.shape}", shape)
    array = array if array.dtype == dtype else convert_array(array, dtype)
    arrays.append(array)
    return array

  return take


def _mapping_taker(spec: Mapping[Any, Any], path: str) -> Taker:
  takers = {
    key: make_taker(spec[key], f"{path}[{key!r}]") for key in _sorted(spec)
  }

  def take(value: Any, step: int, arrays: list[np.ndarray]) -> Any:
    if not isinstance(value, Mapping) or value.keys() != takers.keys():
      raise other_than(path, step, describe(value), describe(takers))
    return {
      key: taker(value[key], step, arrays) for key, taker in takers.items()
    }

  return take


def _sequence_taker(spec: Sequence[Any], path: str) -> Taker:
  takers = [make_taker(each, f"{path}[{i}]") for i, each in enumerate(spec)]

  def take(value: Any, step: int, arrays: list[np.ndarray]) -> Any:
    if not isinstance(value, list | tuple) or len(value) != len(takers):
      raise other_than(
        path, step, describe(value), f"a sequence of {len(takers)}"
      )
    return like(
      spec,
      [
        taker(each, step, arrays)
        for taker, each in zip(takers, value, strict=True)
      ],
    )

  return take


def other_than(
  path: str, step: int, given: str, specified: Any
) -> InvalidValueError:
  """The error that says what an observation is in place of its spec's."""
  return InvalidValueError(
    f"observation{path} is {specs_lib.in_a_line(given)} at step {step} of the "
    f"episode; the spec says {specs_lib.in_a_line(specified)}."
  )


def describe(value: Any) -> str:
  """What is given in place of what the spec says, in a few words."""
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


def leaves(spec: Any) -> list[Any]:
  """The specs of a nest's arrays, in the order of `FloatObservations`."""
  if isinstance(spec, Mapping):
    spec = [spec[key] for key in _sorted(spec)]
  if isinstance(spec, list | tuple):
    return [leaf for each in spec for leaf in leaves(each)]
  return [spec]


def float_dtype(*dtypes: Any) -> np.dtype:
  """The floats that hold numbers of these types."""
  single = np.result_type(np.float32, *dtypes) == np.float32
  return np.dtype(np.float32 if single else np.float64)
