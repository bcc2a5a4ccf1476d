"""What an environment gives, in the form that replay holds it.

Or the error that names what cannot be held, in one line. Needs numpy alone.
"""

from typing import Any

import numpy as np

from acme_qsm.types import InvalidValueError
from acme_qsm.types import NonFiniteError

_LARGEST = float(np.finfo(np.float32).max)
# Of the components that are not finite, how many are shown.
_NUM_SHOWN = 3


def take_array(
  name: str, value: Any, shape: tuple[int, ...] | None, step: int
) -> np.ndarray:
  """Takes an array, such as an observation or an action.

  Args:
    name: what it is called.
    value: what was given: numbers of any type.
    shape: what its shape is to be; None for any.
    step: the step of the episode that it was given at, 0 for its start.

  Returns:
    A float32 array of its own: who gave it may write into theirs again.

  Raises:
    InvalidValueError: if these are no numbers, or have another shape.
    NonFiniteError: if one is a NaN, an infinity or beyond float32.
  """
  given = _as_numbers(name, value, step)
  if shape is not None and given.shape != shape:
    raise InvalidValueError(
      f"{name} has shape {given.shape} at step {step} of the episode; the spec "
      f"says {shape}."
    )
  if given.dtype == np.float32:
    taken = given.copy()
  else:
    # What is infinite then is named below.
    with np.errstate(over="ignore"):
      taken = given.astype(np.float32)
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
  """Takes a number, such as a reward.

  Args:
    name: what it is called.
    value: what was given: a number of any type, or an array of one.
    step: the step of the episode that it was given at.

  Returns:
    The number.

  Raises:
    InvalidValueError: if it is something else, such as None.
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


def require_representable(name: str, number: float, step: int) -> None:
  """Raises NonFiniteError unless a number is finite, in float32 as well.

  Args:
    name: what it is called.
    number: the number.
    step: the step of the episode that it was given at.
  """
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
