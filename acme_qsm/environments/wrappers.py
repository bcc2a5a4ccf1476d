"""Wrappers that bring environments into the form that agents here expect.

They need numpy and dm_env alone. Each step passes through all of them, so that
what can be worked out before is.
"""

from typing import Any

import dm_env
import numpy as np
from dm_env import specs

# What dm_control gives as the bounds of an actuator without any.
_UNBOUNDED = 1e10

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
      environment: the environment inside, whose observations are a dictionary.
    """
    super().__init__(environment)
    fields: Any = environment.observation_spec()
    self._names = sorted(fields)
    example = self._concatenate(
      {name: np.zeros(spec.shape, spec.dtype) for name, spec in fields.items()}
    )
    self._observation_spec = specs.BoundedArray(
      example.shape, example.dtype, -np.inf, np.inf, name="state"
    )

  def _concatenate(self, observation: Any) -> np.ndarray:
    # Without an axis, scalars are concatenated as well.
    return np.concatenate([observation[name] for name in self._names], None)

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode."""
    first = self._environment.reset()
    return first._replace(observation=self._concatenate(first.observation))

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    step_type, reward, discount, observation = self._environment.step(action)
    return dm_env.TimeStep(
      step_type, reward, discount, self._concatenate(observation)
    )

  def observation_spec(self) -> specs.BoundedArray:
    """The vectors' spec."""
    return self._observation_spec


class CanonicalActions(EnvironmentWrapper):
  """Takes actions in [-1, 1], and clips others, for what has other bounds.

  Actions without bounds are left as they are.
  """

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside; actions are one array.
    """
    super().__init__(environment)
    spec: Any = environment.action_spec()
    self._is_bounded = isinstance(spec, specs.BoundedArray)
    if self._is_bounded:
      self._offset = spec.minimum
      self._scale = spec.maximum - spec.minimum

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    if self._is_bounded:
      action = scale_actions(action, self._offset, self._scale)
    return self._environment.step(action)

  def action_spec(self) -> Any:
    """The spec of actions in [-1, 1]."""
    spec: Any = self._environment.action_spec()
    if not self._is_bounded:
      return spec
    return spec.replace(
      minimum=-np.ones(spec.shape), maximum=np.ones(spec.shape)
    )


class SinglePrecision(EnvironmentWrapper):
  """Turns what an environment gives into float32 and int32."""

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode."""
    return self._convert(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step."""
    return self._convert(self._environment.step(action))

  def _convert(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
      step_type,
      _convert_value(reward),
      _convert_value(discount),
      _convert_value(observation),
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


def _convert_value(value: Any) -> Any:
  if value is None:  # A first time step's reward and discount.
    return None
  if isinstance(value, dict):
    return {name: _convert_value(field) for name, field in value.items()}
  value = np.asarray(value)
  dtype = SINGLE.get(value.dtype)
  return value if dtype is None else value.astype(dtype)


def _convert_spec(spec: Any) -> Any:
  if isinstance(spec, dict):
    return {name: _convert_spec(field) for name, field in spec.items()}
  dtype = SINGLE.get(np.dtype(spec.dtype))
  return spec if dtype is None else spec.replace(dtype=dtype)


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
    """Makes the steps."""
    timestep = self._environment.step(action)
    total, discount = timestep.reward, timestep.discount
    for _ in range(self._num_repeats - 1):
      if timestep.last():
        break
      timestep = self._environment.step(action)
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


class UnitBounds(EnvironmentWrapper):
  """Bounds what has no bounds, or MuJoCo's +-1e10, to [-1, 1]."""

  def action_spec(self) -> Any:
    """The actions' spec, with bounds."""
    spec: Any = self._environment.action_spec()
    if not isinstance(spec, specs.BoundedArray):
      return specs.BoundedArray(spec.shape, spec.dtype, -1.0, 1.0, spec.name)
    unbounded = (spec.minimum <= -_UNBOUNDED) | (spec.maximum >= _UNBOUNDED)
    return spec.replace(
      minimum=np.where(unbounded, -1.0, spec.minimum),
      maximum=np.where(unbounded, 1.0, spec.maximum),
    )


class UnitRewards(EnvironmentWrapper):
  """States that rewards are in [0, 1], as dm_control's tasks only document."""

  def reward_spec(self) -> specs.BoundedArray:
    """The rewards' spec, with bounds."""
    return specs.BoundedArray((), np.float64, 0.0, 1.0, name="reward")
