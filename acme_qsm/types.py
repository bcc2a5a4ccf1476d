"""Data structures shared by every layer."""

import dataclasses
from typing import Any
from typing import NamedTuple
from typing import Protocol
from typing import TYPE_CHECKING
from typing import TypeAlias

import numpy as np

if TYPE_CHECKING:
  import jax


Params = Any
"""Network parameters: a pytree of arrays."""

Metrics: TypeAlias = dict[str, "jax.Array"]
"""Scalars that describe one learner step, by name: float32 []."""

Extras: TypeAlias = dict[str, "jax.Array"]
"""What a policy gives beside its actions, by name: [B, ...]; {} for nothing."""


class InvalidValueError(ValueError):
  """A value that nobody can use, such as a reward that is None."""


class NonFiniteError(InvalidValueError):
  """A NaN or an infinity where none can be used."""


def are_given(extras: Any) -> bool:
  """Whether extras, of a transition or beside an action, are any at all.

  Args:
    extras: anything. None and what is empty, such as (), stand for nothing.

  Returns:
    Whether they hold something.
  """
  is_container = isinstance(extras, tuple | list | dict)
  return len(extras) > 0 if is_container else extras is not None


class Transition(NamedTuple):
  """A batch of (n-step) transitions, with a leading batch axis B.

  The fields are those of `acme.types.Transition`, so either can be passed where
  the other is expected.

  Attributes:
    observation: [B, ...] observations o_t.
    action: [B, A] actions a_t in [-1, 1].
    reward: [B] n-step returns, sum_{k<n} discount^k r_{t+k+1}.
    discount: [B] what multiplies the learner's discount in the bootstrap term:
      0 where the episode terminated, discount^(n - 1) (1 for one step) where
      it went on or was truncated by a time limit.
    next_observation: [B, ...] observations o_{t+n}.
    extras: what the policy gave beside its action, and a method may change in
      replay: arrays [B, ...] by name; () for nothing.
  """

  observation: Any
  action: Any
  reward: Any
  discount: Any
  next_observation: Any
  extras: Any = ()


@dataclasses.dataclass(frozen=True)
class ArraySpec:
  """An array's spec, for those without dm_env's.

  Attributes:
    shape: sizes of the axes.
    dtype: type of the elements.
    minimum: the least value of the elements; None for no bound.
    maximum: the greatest value; None for no bound.
  """

  shape: tuple[int, ...]
  dtype: Any = np.float32
  minimum: Any = None
  maximum: Any = None


class EnvironmentSpec(NamedTuple):
  """An environment's specs, dm_env's or others like them.

  The fields are those of `acme.specs.EnvironmentSpec`, so either can be passed
  where the other is expected.

  Attributes:
    observations: the observations' spec.
    actions: the actions' spec, with `minimum` and `maximum`.
    rewards: the rewards' spec; None if nothing is known of them.
    discounts: the discounts' spec; None if nothing is known of them.
  """

  observations: Any
  actions: Any
  rewards: Any = None
  discounts: Any = None


class EnvironmentSpecLike(Protocol):
  """What the core reads of an environment; Acme's and others' specs have it.

  `actions` carries `minimum` and `maximum` besides `shape` and `dtype`. Where
  there is a `rewards` with `minimum` and `maximum`, they are believed.
  """

  @property
  def observations(self) -> Any:
    """Spec of the observations."""
    ...

  @property
  def actions(self) -> Any:
    """Spec of the actions."""
    ...
