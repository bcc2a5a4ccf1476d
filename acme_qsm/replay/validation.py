"""What environments and policies give, in the form that replay holds it.

Or the error that names what cannot be held, in one line. Needs numpy alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from acme_qsm.types import are_given
from acme_qsm.types import InvalidValueError
from acme_qsm.types import NonFiniteError

_LARGEST = float(np.finfo(np.float32).max)
# Of the components that are not finite, how many are shown.
_NUM_SHOWN = 3


def take_array(
  name: str,
  value: Any,
  shape: tuple[int, ...] | None,
  step: int,
  dtype: Any = np.float32,
) -> np.ndarray:
  """Takes an array, such as an observation or an action.

  Args:
    name: what it is called.
    value: what was given: numbers of any type.
    shape: what its shape is to be; None for any.
    step: the step of the episode that it was given at, 0 for its start.
    dtype: what its type is to be.

  Returns:
    An array of its own of that type: who gave it may write into theirs again.

  Raises:
    InvalidValueError: if these are no numbers, have another shape, or are none
      that a dtype of whole numbers can hold.
    NonFiniteError: if one is a NaN, an infinity or beyond the dtype's floats.
  """
  given = _as_numbers(name, value, step)
  if shape is not None and given.shape != shape:
    raise InvalidValueError(
      f"{name} has shape {given.shape} at step {step} of the episode; the spec "
      f"says {shape}."
    )
  if given.dtype == dtype:
    taken = given.copy()
  else:
    # What is infinite or another number then is named below.
    with np.errstate(over="ignore", invalid="ignore"):
      taken = given.astype(dtype)
  if taken.dtype.kind != "f":
    if not np.array_equal(taken, given):
      raise InvalidValueError(
        f"{name} has values of dtype {given.dtype} at step {step} of the "
        f"episode that {taken.dtype}, its spec's dtype, cannot hold."
      )
    return taken
  finite = np.isfinite(taken)
  if not finite.all():
    raise NonFiniteError(
      _describe(
        name,
        step,
        bool(np.isfinite(given).all()),
        _list_components(given, ~finite),
      )
    )
  return taken


def take_number(name: str, value: Any, step: int) -> float:
  """Takes a number, such as a reward: see `take_array`.

  Raises:
    InvalidValueError: if it is neither a number nor an array of one.
    NonFiniteError: if it is a NaN, an infinity or beyond float32.
  """
  given = _as_numbers(name, value, step)
  if given.size != 1:
    raise InvalidValueError(
      f"{name} has shape {given.shape} at step {step} of the episode; it must "
      "be one number."
    )
  number = float(given.item())
  require_representable(name, number, step)
  return number


def take_discount(value: Any, step: int) -> float:
  """Takes an environment's discount: see `take_number`.

  Raises:
    InvalidValueError: also if it is not in [0, 1].
  """
  discount = take_number("discount", value, step)
  if not 0.0 <= discount <= 1.0:
    raise InvalidValueError(
      f"discount is {discount:g} at step {step} of the episode; it must be in "
      "[0, 1]."
    )
  return discount


def take_extras(
  extras: Any, extras_spec: Mapping[str, Any], step: int
) -> dict[str, np.ndarray]:
  """Takes what a policy gives beside an action.

  Args:
    extras: arrays by name; (), None or {} for none.
    extras_spec: what they are to be: by name, what has a shape and a dtype.
    step: the step of the episode that they were given at.

  Returns:
    Arrays of their own, of the spec's dtypes; {} for none.

  Raises:
    InvalidValueError: if one is missing or not in the spec, or (see
      `take_array`) has another shape or dtype than the spec says.
  """
  given = require_extras(extras, extras_spec, step)
  return {
    name: take_array(
      f"the extra {name!r}", given[name], tuple(spec.shape), step, spec.dtype
    )
    for name, spec in extras_spec.items()
  }


def require_extras(
  extras: Any, extras_spec: Mapping[str, Any], step: int | None = None
) -> Mapping[str, Any]:
  """Checks that there are the extras of a spec and no others.

  Args:
    extras: arrays by name; (), None or {} for none.
    extras_spec: by name.
    step: the step of the episode that they were given at, for the error.

  Returns:
    The extras by name; {} for none.

  Raises:
    InvalidValueError: if one is missing or not in the spec; names it.
  """
  if not extras_spec and not are_given(extras):
    return {}
  given = extras if are_given(extras) else {}
  where = "" if step is None else f" at step {step} of the episode"
  if not isinstance(given, Mapping):
    raise InvalidValueError(
      f"Extras are of {type(extras).__name__}{where}; they must be arrays by "
      "name."
    )
  missing = sorted(extras_spec.keys() - given.keys())
  unknown = sorted(given.keys() - extras_spec.keys())
  if missing or unknown:
    wrong = [f"{missing} are missing"] if missing else []
    wrong += [f"{unknown} are not in its spec"] if unknown else []
    raise InvalidValueError(
      f"Of the policy's extras, {' and '.join(wrong)}{where}; the spec says "
      f"{sorted(extras_spec)}."
    )
  return given


def require_representable(name: str, number: float, step: int) -> None:
  """Raises NonFiniteError unless a number is finite, in float32 as well."""
  if not -_LARGEST <= number <= _LARGEST:
    raise NonFiniteError(
      _describe(name, step, bool(np.isfinite(number)), f"{number:g}")
    )


def _as_numbers(name: str, value: Any, step: int) -> np.ndarray:
  """What was given as an array; raises unless these are numbers."""
  try:
    given = np.asarray(value)
  except (TypeError, ValueError):  # Lists of lists of different lengths.
    given = np.empty((), object)
  if given.dtype.kind not in "fiub":
    what = "None" if value is None else f"of {type(value).__name__}"
    if given.dtype != object:
      what = f"of dtype {given.dtype}"
    raise InvalidValueError(
      f"{name} is {what} at step {step} of the episode; it must be numbers."
    )
  return given


def _describe(name: str, step: int, is_finite: bool, value: str) -> str:
  """Says what is not finite, or only in float32."""
  where = " in float32" if is_finite else ""
  return f"{name} is not finite{where} at step {step} of the episode: {value}."


def _list_components(given: np.ndarray, chosen: np.ndarray) -> str:
  """Some components of an array, in a line."""
  indices = np.argwhere(chosen)
  shown = [
    f"{list(index) or ''}{' is ' if index else ''}{given[index]:g}"
    for index in map(tuple, indices[:_NUM_SHOWN].tolist())
  ]
  more = len(indices) - len(shown)
  return ", ".join(shown) + (f" and {more} more" if more else "")
