"""Wrappers that bring environments into the form that agents here expect.

They need numpy and dm_env alone. Each step passes through all of them, so that
what can be worked out before is.
"""

import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np
import tree
from dm_env import specs

from acme_qsm import specs as specs_lib
from acme_qsm.environments import nests

UNBOUNDED = 1e10
"""What dm_control gives as the bounds of an actuator without any."""

SINGLE = {
  np.dtype(np.float64): np.dtype(np.float32),
  np.dtype(np.int64): np.dtype(np.int32),
}
"""What `SinglePrecision` turns a dtype into, if not itself."""


class EnvironmentWrapper(dm_env.Environment):
  """An environment around another one, which it otherwise is.

  Attributes that it does not have are those of the environment inside.
  """

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.
    """
    self._environment = environment

  def __getattr__(self, name: str) -> Any:
    # Python asks for those, to copy an object that has no attributes yet.
    if name.startswith("__"):
      raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
    return getattr(self._environment, name)

  @property
  def environment(self) -> dm_env.Environment:
    """The environment inside."""
    return self._environment

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode."""
    return self._environment.reset()

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    return self._environment.step(action)

  def close(self) -> None:
    """Closes the environment inside."""
    self._environment.close()

  def observation_spec(self) -> Any:
    """The observations' spec."""
    return self._environment.observation_spec()

  def action_spec(self) -> Any:
    """The actions' spec."""
    return self._environment.action_spec()

  def reward_spec(self) -> Any:
    """The rewards' spec."""
    return self._environment.reward_spec()

  def discount_spec(self) -> Any:
    """The discounts' spec."""
    return self._environment.discount_spec()


class ConcatenatedObservations(EnvironmentWrapper):
  """Makes one vector of a dictionary of observations.

  The fields follow each other by name, each flattened.
  """

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside, whose observations are a dictionary
        of arrays.

    Raises:
      ValueError: if they are something else.
    """
    super().__init__(environment)
    fields: Any = environment.observation_spec()
    _require_fields(fields)
    self._num_steps = 0
    self._names = sorted(fields)
    example = self._concatenate(
      {name: np.zeros(spec.shape, spec.dtype) for name, spec in fields.items()}
    )
    self._observation_spec = specs.BoundedArray(
      example.shape, example.dtype, -np.inf, np.inf, name="state"
    )

  def _concatenate(self, observation: Any) -> np.ndarray:
    try:
      # Without an axis, scalars are concatenated as well.
      return np.concatenate([observation[name] for name in self._names], None)
    except (IndexError, KeyError, TypeError, ValueError) as error:
      raise nests.other_than(
        "",
        self._num_steps,
        nests.describe(observation),
        f"a dictionary of {', '.join(map(repr, self._names))}",
      ) from error

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode."""
    self._num_steps = 0
    first = self._environment.reset()
    return first._replace(observation=self._concatenate(first.observation))

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step.

    Raises:
      InvalidValueError: if a field of the spec is missing.
    """
    self._num_steps += 1
    step_type, reward, discount, observation = self._environment.step(action)
    return dm_env.TimeStep(
      step_type, reward, discount, self._concatenate(observation)
    )

  def observation_spec(self) -> specs.BoundedArray:
    """The vectors' spec."""
    return self._observation_spec


class FloatObservations(EnvironmentWrapper):
  """Makes floats of observations: numbers and arrays of any type, and nests.

  Flat, they are one vector: the parts of dictionaries follow each other by
  name, those of lists and tuples in their order, each flattened, as
  `ConcatenatedObservations` has them. Truth values are 0 and 1. Integers are
  rounded where float32 ends (beyond 2^24), as other numbers are, once they are
  in single precision.
  """

  def __init__(self, environment: dm_env.Environment, *, flatten: bool = True):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.
      flatten: whether observations are one vector; else each array keeps its
        shape and its place.

    Raises:
      ValueError: names what is no array of numbers, or says that there is none.
    """
    super().__init__(environment)
    spec: Any = environment.observation_spec()
    self._flatten = flatten
    self._num_steps = 0
    self._take = nests.make_taker(spec)
    leaves = nests.leaves(spec)
    size = sum(int(np.prod(leaf.shape)) for leaf in leaves)
    if not size:
      raise ValueError(
        f"observations must not be empty, got {specs_lib.in_a_line(spec)}: "
        "give one that is always 0."
      )
    self._dtype = nests.float_dtype(*(leaf.dtype for leaf in leaves))
    self._observation_spec: Any = (
      specs.Array((size,), self._dtype, name="state")
      if flatten
      else tree.map_structure(_float_spec, spec)
    )

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode."""
    self._num_steps = 0
    return self._convert(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step.

    Raises:
      InvalidValueError: if an observation is not what the spec says.
    """
    self._num_steps += 1
    return self._convert(self._environment.step(action))

  def observation_spec(self) -> Any:
    """The spec of what they become."""
    return self._observation_spec

  def _convert(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    arrays: list[np.ndarray] = []
    taken = self._take(timestep.observation, self._num_steps, arrays)
    if self._flatten:
      taken = nests.convert_array(np.concatenate(arrays, None), self._dtype)
    return timestep._replace(observation=taken)


class CanonicalActions(EnvironmentWrapper):
  """Takes actions in [-1, 1], and clips others, for what has other bounds.

  Actions without bounds are left as they are. The environment inside is given
  the type that its spec says, and nothing outside of its bounds.
  """

  converts_actions = True

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside; actions are one array of floats.

    Raises:
      ValueError: if they are something else, or bounds are not finite.
    """
    super().__init__(environment)
    spec: Any = environment.action_spec()
    specs_lib.require_continuous("actions", spec)
    self._is_bounded = isinstance(spec, specs.BoundedArray)
    if self._is_bounded:
      specs_lib.require_finite_bounds("actions", spec)
      self._dtype = np.dtype(spec.dtype)
      self._offset = self._minimum = spec.minimum
      self._maximum = spec.maximum
      with np.errstate(over="ignore"):
        self._scale = spec.maximum - spec.minimum
      if not np.all(np.isfinite(self._scale)):
        raise ValueError(
          "actions must have bounds whose difference is a number in "
          f"{spec.dtype}, got minimum={specs_lib.in_a_line(spec.minimum)}, "
          f"maximum={specs_lib.in_a_line(spec.maximum)}: give narrower ones, "
          "acme_qsm.environments.adapt(environment, minimum=..., maximum=...)."
        )

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    if self._is_bounded:
      action = scale_actions(action, self._offset, self._scale)
      # Rounded to float32, an end may lie outside of bounds in float64.
      action = np.maximum(action, self._minimum, dtype=self._dtype)
      action = np.minimum(action, self._maximum)
    return self._environment.step(action)

  def action_spec(self) -> Any:
    """The spec of actions in [-1, 1]."""
    spec: Any = self._environment.action_spec()
    if not self._is_bounded:
      return spec
    return spec.replace(
      minimum=-np.ones(spec.shape), maximum=np.ones(spec.shape)
    )


class FlatActions(EnvironmentWrapper):
  """Takes a vector for actions of another shape, such as () or [2, 3]."""

  converts_actions = True

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside; actions are one array of floats.

    Raises:
      ValueError: if they are something else, or empty.
    """
    super().__init__(environment)
    spec: Any = environment.action_spec()
    specs_lib.require_continuous("actions", spec)
    self._inner_spec = spec
    self._size = int(np.prod(spec.shape))
    if not self._size:
      raise ValueError(f"actions must not be empty, got shape {spec.shape}.")

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    spec = self._inner_spec
    return self._environment.step(
      np.asarray(action, spec.dtype).reshape(spec.shape)
    )

  def action_spec(self) -> Any:
    """The vectors' spec."""
    spec = self._inner_spec
    if not isinstance(spec, specs.BoundedArray):
      return spec.replace(shape=(self._size,))
    minimum, maximum = (
      np.broadcast_to(bound, spec.shape).reshape(self._size)
      for bound in (spec.minimum, spec.maximum)
    )
    return spec.replace(shape=(self._size,), minimum=minimum, maximum=maximum)


class BoundedActions(EnvironmentWrapper):
  """Bounds actions further, such as those that have no bounds."""

  def __init__(
    self, environment: dm_env.Environment, minimum: Any, maximum: Any
  ):
    """Initialises the wrapper.

    Args:
      environment: the environment inside; actions are one array of floats.
        MuJoCo's bounds of +-1e10 are none.
      minimum: the least of actions, for all of them or each; where the
        environment's own is greater, that stays. None for its own.
      maximum: the greatest, likewise.

    Raises:
      ValueError: if actions are something else, or bounds are not of their
        shape.
    """
    super().__init__(environment)
    spec: Any = environment.action_spec()
    specs_lib.require_continuous("actions", spec)
    least = _narrow(np.maximum, "minimum", minimum, spec, -np.inf)
    greatest = _narrow(np.minimum, "maximum", maximum, spec, np.inf)
    if np.any(least >= greatest):
      raise ValueError(
        "actions must have minimum < maximum, got "
        f"minimum={specs_lib.in_a_line(least)}, "
        f"maximum={specs_lib.in_a_line(greatest)}."
      )
    self._action_spec = specs.BoundedArray(
      spec.shape, spec.dtype, least, greatest, spec.name
    )

  def action_spec(self) -> specs.BoundedArray:
    """The actions' spec, with these bounds."""
    return self._action_spec


class ScalarRewards(EnvironmentWrapper):
  """Makes floats of rewards and discounts that are integers or arrays of one.

  Those that are neither are left to whoever takes them, who says when it was.
  """

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.

    Raises:
      ValueError: if rewards or discounts are something else.
    """
    super().__init__(environment)
    self._reward_spec = _scalar_spec("rewards", environment.reward_spec())
    self._discount_spec = _scalar_spec("discounts", environment.discount_spec())

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode."""
    return self._convert(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    return self._convert(self._environment.step(action))

  def reward_spec(self) -> Any:
    """The rewards' spec."""
    return self._reward_spec

  def discount_spec(self) -> Any:
    """The discounts' spec."""
    return self._discount_spec

  def _convert(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
      step_type, _as_scalar(reward), _as_scalar(discount), observation
    )


class SinglePrecision(EnvironmentWrapper):
  """Turns what an environment gives into float32 and int32.

  What they cannot hold, such as 1e39, stays as it is, so that whoever takes it
  can say what it was. Actions are turned into what the spec inside says.
  """

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.
    """
    super().__init__(environment)
    self._convert_action: Callable[[Any], Any] | None = None
    spec: Any = environment.action_spec()
    # Whoever converts them inside is to have them as they are given.
    if not getattr(environment, "converts_actions", False) and (
      _convert_spec(spec) != spec
    ):
      self._convert_action = functools.partial(_as_specified, spec)
    self._inner_spec: Any = environment.observation_spec()

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode."""
    return self._convert(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    if self._convert_action is not None:
      action = self._convert_action(action)
    return self._convert(self._environment.step(action))

  def _convert(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
      step_type,
      _convert_value(reward),
      _convert_value(discount),
      _convert_value(observation, self._inner_spec),
    )

  def observation_spec(self) -> Any:
    """The observations' spec."""
    return _convert_spec(self._environment.observation_spec())

  def action_spec(self) -> Any:
    """The actions' spec."""
    return _convert_spec(self._environment.action_spec())

  def reward_spec(self) -> Any:
    """The rewards' spec."""
    return _convert_spec(self._environment.reward_spec())

  def discount_spec(self) -> Any:
    """The discounts' spec."""
    return _convert_spec(self._environment.discount_spec())


def scale_actions(
  actions: np.ndarray, offset: np.ndarray, scale: np.ndarray
) -> np.ndarray:
  """Brings actions from [-1, 1], to which they are clipped, to other bounds.

  Args:
    actions: [..., A] actions.
    offset: [A] the least of each component.
    scale: [A] how much more the greatest is.

  Returns:
    [..., A] actions, as precise as those that are given.
  """
  # A third of what `np.clip` takes.
  actions = np.minimum(np.maximum(actions, -1.0), 1.0)
  actions = 0.5 * (actions + 1.0)
  actions *= scale
  actions += offset
  return actions


def _convert_value(value: Any, spec: Any = None) -> Any:
  """What an environment gives in single precision; nests are as in the spec."""
  if value is None:  # A first time step's reward and discount.
    return None
  if isinstance(value, dict):
    fields = spec if isinstance(spec, dict) else {}
    return {
      name: _convert_value(field, fields.get(name))
      for name, field in value.items()
    }
  if isinstance(spec, tuple | list) and isinstance(value, tuple | list):
    return nests.like(spec, map(_convert_value, value, spec))
  value = np.asarray(value)
  dtype = SINGLE.get(value.dtype)
  return value if dtype is None else nests.convert_array(value, dtype)


def _as_specified(spec: Any, action: Any) -> Any:
  """Actions, nested or not, of the types that their spec says."""
  if isinstance(spec, dict):
    return {
      name: _as_specified(each, action[name]) for name, each in spec.items()
    }
  if isinstance(spec, tuple | list):
    return nests.like(spec, map(_as_specified, spec, action))
  return np.asarray(action, spec.dtype)


def _convert_spec(spec: Any) -> Any:
  if isinstance(spec, dict):
    return {name: _convert_spec(field) for name, field in spec.items()}
  if isinstance(spec, tuple | list):
    return nests.like(spec, map(_convert_spec, spec))
  dtype = SINGLE.get(np.dtype(spec.dtype))
  return spec if dtype is None else spec.replace(dtype=dtype)


def _float_spec(spec: Any) -> specs.Array:
  """An array's spec as floats."""
  return specs.Array(spec.shape, nests.float_dtype(spec.dtype), name=spec.name)


def _require_fields(fields: Any) -> None:
  """Raises ValueError unless specs are of arrays in a dictionary."""
  is_plain = isinstance(fields, Mapping) and all(
    map(specs_lib.is_array, fields.values())
  )
  if not is_plain or not fields:
    raise ValueError(
      "ConcatenatedObservations needs observations that are a dictionary of "
      f"arrays, got {specs_lib.in_a_line(fields)}; for others there are "
      "acme_qsm.environments.wrappers.FloatObservations and "
      "acme_qsm.environments.adapt."
    )


def _narrow(
  choose: Callable[[Any, Any], Any],
  name: str,
  bound: Any,
  spec: Any,
  none: float,
) -> np.ndarray:
  """Chooses between an action spec's own bound and a given one."""
  own = np.asarray(getattr(spec, name, none), spec.dtype)
  own = np.where(own == np.copysign(UNBOUNDED, none), none, own)
  if bound is None:
    bound = none
  bound = np.asarray(bound, spec.dtype)
  try:
    fits = np.broadcast_shapes(bound.shape, spec.shape) == tuple(spec.shape)
  except ValueError:
    fits = False
  if not fits:
    raise ValueError(
      f"{name} must be one number or of the actions' shape {spec.shape}, got "
      f"shape {bound.shape}."
    )
  return choose(own, bound)


def _scalar_spec(name: str, spec: Any) -> specs.Array:
  """The spec of a number that is one, or in an array of one."""
  is_number = specs_lib.is_array(spec) and np.dtype(spec.dtype).kind in "biuf"
  if not is_number or int(np.prod(spec.shape)) != 1:
    raise ValueError(
      f"{name} must be one number, got {specs_lib.in_a_line(spec)}."
    )
  dtype = nests.float_dtype(spec.dtype)
  if not isinstance(spec, specs.BoundedArray):
    return specs.Array((), dtype, spec.name)
  return specs.BoundedArray(
    (), dtype, np.min(spec.minimum), np.max(spec.maximum), spec.name
  )


def _as_scalar(value: Any) -> Any:
  """A number as a float without axes; what is none as it is."""
  if value is None:
    return None
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind not in "biuf":
    return value
  return array.reshape(()).astype(nests.float_dtype(array.dtype))


class ActionRepeat(EnvironmentWrapper):
  """Repeats each action, or until the episode ends, and sums the rewards.

  Each reward is discounted by the environment's own discounts before it, whose
  product is the discount. Where each reward has bounds, so has their sum.
  """

  def __init__(self, environment: dm_env.Environment, num_repeats: int):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.
      num_repeats: how often an action is taken, at least 1.
    """
    super().__init__(environment)
    self._num_repeats = num_repeats

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes the steps, or begins an episode after the last one."""
    timestep = self._environment.step(action)
    total, discount = map(_own, (timestep.reward, timestep.discount))
    for _ in range(self._num_repeats - 1):
      # None, as of a first time step, is for whoever takes it.
      if not timestep.mid() or total is None or discount is None:
        break
      timestep = self._environment.step(action)
      if timestep.reward is None or timestep.discount is None:
        return timestep
      total = total + timestep.reward * discount
      discount = discount * timestep.discount
    return timestep._replace(reward=total, discount=discount)

  def reward_spec(self) -> Any:
    """The spec of a sum of rewards."""
    spec: Any = self._environment.reward_spec()
    if not isinstance(spec, specs.BoundedArray):
      return spec
    # Of a sum that may have fewer terms: an episode can end in the middle.
    return spec.replace(
      minimum=np.minimum(spec.minimum, spec.minimum * self._num_repeats),
      maximum=np.maximum(spec.maximum, spec.maximum * self._num_repeats),
    )


def _own(value: Any) -> Any:
  """A value that stays, where an environment writes into its array again."""
  return value.copy() if isinstance(value, np.ndarray) else value


class UnitBounds(EnvironmentWrapper):
  """Bounds what has no bounds, or MuJoCo's +-1e10, to [-1, 1]."""

  def action_spec(self) -> Any:
    """The actions' spec, with bounds.

    Raises:
      ValueError: if actions are no array of floats, or some have one bound and
        not the other.
    """
    spec: Any = self._environment.action_spec()
    specs_lib.require_continuous("actions", spec)
    if not isinstance(spec, specs.BoundedArray):
      return specs.BoundedArray(spec.shape, spec.dtype, -1.0, 1.0, spec.name)
    below, above = spec.minimum <= -UNBOUNDED, spec.maximum >= UNBOUNDED
    if np.any(below != above):
      raise ValueError(
        "actions must have both bounds or none, got "
        f"minimum={specs_lib.in_a_line(spec.minimum)}, "
        f"maximum={specs_lib.in_a_line(spec.maximum)}: give the other by "
        "acme_qsm.environments.adapt(environment, minimum=..., maximum=...)."
      )
    unbounded = below & above
    return spec.replace(
      minimum=np.where(unbounded, -1.0, spec.minimum),
      maximum=np.where(unbounded, 1.0, spec.maximum),
    )


class UnitRewards(EnvironmentWrapper):
  """States that rewards are in [0, 1], as dm_control's tasks only document."""

  def reward_spec(self) -> specs.BoundedArray:
    """The rewards' spec, with bounds."""
    return specs.BoundedArray((), np.float64, 0.0, 1.0, name="reward")
