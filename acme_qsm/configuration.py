"""Configurations, whose fields say what they may be, and checks of names."""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable
from collections.abc import Collection
from numbers import Real
from types import UnionType
from typing import Any
from typing import get_args
from typing import get_origin
from typing import get_type_hints
from typing import Literal
from typing import NoReturn
from typing import Union

_CHECK, _ALLOWED = "check", "allowed"


def checked(default: Any, check: Callable[[Any], bool], allowed: str) -> Any:
  """A field of a `Configuration` whose values are checked.

  Args:
    default: its default.
    check: whether a value may be; not asked of the None of optional fields.
    allowed: what values may be, as in "must be <allowed>".

  Returns:
    What to assign to the field.
  """
  return dataclasses.field(
    default=default, metadata={_CHECK: check, _ALLOWED: allowed}
  )


def positive(default: Any) -> Any:
  """A field whose values are above 0."""
  return checked(default, lambda value: value > 0, "positive")


def non_negative(default: Any) -> Any:
  """A field whose values are 0 or above."""
  return checked(default, lambda value: value >= 0, "at least 0")


def unit_interval(default: Any, brackets: str = "[]") -> Any:
  """A field whose values are from 0 to 1.

  Args:
    default: its default.
    brackets: "[" or "(" and "]" or ")", as in "[0, 1)": a round one where that
      end is none of the values.

  Returns:
    What to assign to the field.
  """
  low, high = brackets
  return checked(
    default,
    lambda value: (
      (value >= 0 if low == "[" else value > 0)
      and (value <= 1 if high == "]" else value < 1)
    ),
    f"in {low}0, 1{high}",
  )


def widths(default: tuple[int, ...]) -> Any:
  """A field that holds the widths of hidden layers."""
  return checked(
    default,
    lambda value: (
      isinstance(value, tuple)
      and len(value) > 0
      and all(type(width) is int and width > 0 for width in value)
    ),
    "a tuple of one or more positive widths",
  )


@functools.cache
def _field_types(configuration: type) -> dict[str, Any]:
  # A field's own `type` is a string where annotations are left unevaluated.
  return get_type_hints(configuration)


@dataclasses.dataclass(frozen=True)
class Configuration:
  """A frozen dataclass that checks its values when it is made.

  Integers must be integers, bools bools, floats finite numbers, literals one of
  theirs, tuples tuples of such; and so in unions. Fields made by `checked` and
  its like must be what they say. What concerns several fields is checked by
  `__post_init__` of who extends this class.
  """

  def __post_init__(self):
    types = _field_types(type(self))
    for field in dataclasses.fields(self):
      self._check(field, types[field.name], getattr(self, field.name))

  def _check(self, field: dataclasses.Field, kind: Any, value: Any) -> None:
    if value is None and type(None) in get_args(kind):
      return
    allowed = _mismatch(kind, value)
    if allowed is not None:
      self.fail(field.name, allowed)
    if _CHECK in field.metadata and not field.metadata[_CHECK](value):
      self.fail(field.name, field.metadata[_ALLOWED])

  def require_at_least(self, name: str, least: str) -> None:
    """Raises ValueError if one field's value is below another's."""
    if getattr(self, name) < getattr(self, least):
      self.fail(name, f"at least {least}={getattr(self, least)}")

  def fail(self, name: str, allowed: str) -> NoReturn:
    """Raises ValueError: the field's value is not what is allowed."""
    raise ValueError(
      f"{type(self).__name__}.{name} must be {allowed}, got "
      f"{getattr(self, name)!r}."
    )


def _mismatch(kind: Any, value: Any) -> str | None:
  """Says what a value must be that is not of a field's type.

  Args:
    kind: the type: of integers, bools, floats, literals, None, tuples of such
      and unions; a value may be anything where it is of another.
    value: the value.

  Returns:
    What it must be, as in "must be <that>"; None if it is of that type.
  """
  if get_origin(kind) in (Union, UnionType):
    mismatches = [_mismatch(each, value) for each in get_args(kind)]
    return None if None in mismatches else " or ".join(map(str, mismatches))
  if kind is int:
    return None if type(value) is int else "an integer"
  if kind is bool:
    return None if type(value) is bool else "True or False"
  if kind is float:
    # NumPy's numbers are real ones too; so are bools.
    if not isinstance(value, Real) or isinstance(value, bool):
      return "a number"
    return None if math.isfinite(value) else "finite"
  if kind is type(None):
    return None if value is None else "None"
  if get_origin(kind) is Literal:
    # 1 == True, but Literal[1] has no True.
    known = [(type(each), each) for each in get_args(kind)]
    is_known = (type(value), value) in known
    return None if is_known else f"in {get_args(kind)}"
  if get_origin(kind) is tuple:
    return _tuple_mismatch(get_args(kind), value)
  return None


def _tuple_mismatch(kinds: tuple[Any, ...], value: Any) -> str | None:
  """`_mismatch` for a tuple whose parts' types these are."""
  if not isinstance(value, tuple):
    return "a tuple"
  if kinds[-1:] == (...,):
    kinds = kinds[:1] * len(value)
  if len(kinds) != len(value):
    return f"a tuple of {len(kinds)}"
  for index, (kind, part) in enumerate(zip(kinds, value, strict=True)):
    allowed = _mismatch(kind, part)
    if allowed is not None:
      return f"a tuple whose part {index} is {allowed}"
  return None


def require_known(kind: str, name: str, known: Collection[str]) -> None:
  """Raises ValueError, with the nearest names, unless a name is known.

  What is near does not depend on case; what is known does.

  Args:
    kind: what has the name, such as "task".
    name: the name.
    known: all names that there are.

  Raises:
    ValueError: if it is none of them; where none is near, it says them all.
  """
  if name in known:
    return
  by_lower = {other.lower(): other for other in known}
  near = [
    by_lower[match]
    for match in difflib.get_close_matches(
      name.lower(), by_lower, n=3, cutoff=0.5
    )
  ]
  hint = f"did you mean {' or '.join(near)}?" if near else f"one of {[*known]}."
  raise ValueError(f"Unknown {kind} {name!r}; {hint}")
