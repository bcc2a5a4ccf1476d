"""Wrappers of actions."""

from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_qsm import specs as specs_lib
from acme_qsm.environments.wrappers.base import EnvironmentWrapper

UNBOUNDED = 1e10
"""What dm_control gives as the bounds of an actuator without any."""


class CanonicalActions(EnvironmentWrapper):
  """Clips actions to [-1, 1], and scales them to the environment's bounds.

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
    spec: Any = environment.action_spec()
    specs_lib.require_continuous("actions", spec)
    self._inner_spec = spec
    self._scale = None
    if isinstance(spec, specs.BoundedArray):
      specs_lib.require_finite_bounds("actions", spec)
      with np.errstate(over="ignore"):
        self._scale = spec.maximum - spec.minimum
      if not np.all(np.isfinite(self._scale)):
        raise ValueError(
          "actions must have bounds whose difference is a number in "
          f"{spec.dtype}, got minimum={specs_lib.in_a_line(spec.minimum)}, "
          f"maximum={specs_lib.in_a_line(spec.maximum)}: give narrower ones, "
          "acme_qsm.environments.adapt(environment, minimum=..., maximum=...)."
        )
      ones = np.ones(spec.shape)
      spec = spec.replace(minimum=-ones, maximum=ones)
    super().__init__(environment, actions=spec)

  def _take(self, action: Any) -> Any:
    if self._scale is None:
      return action
    spec = self._inner_spec
    action = scale_actions(action, spec.minimum, self._scale)
    # Rounded to float32, an end may lie outside of bounds in float64.
    action = np.maximum(action, spec.minimum, dtype=spec.dtype)
    return np.minimum(action, spec.maximum)


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
    spec: Any = environment.action_spec()
    specs_lib.require_continuous("actions", spec)
    self._inner_spec = spec
    size = int(np.prod(spec.shape))
    if not size:
      raise ValueError(f"actions must not be empty, got shape {spec.shape}.")
    bounds = {}
    if isinstance(spec, specs.BoundedArray):
      bounds = {
        name: np.broadcast_to(getattr(spec, name), spec.shape).reshape(size)
        for name in ("minimum", "maximum")
      }
    super().__init__(environment, actions=spec.replace(shape=(size,), **bounds))

  def _take(self, action: Any) -> np.ndarray:
    spec = self._inner_spec
    return np.asarray(action, spec.dtype).reshape(spec.shape)


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
    super().__init__(
      environment,
      actions=specs.BoundedArray(
        spec.shape, spec.dtype, least, greatest, spec.name
      ),
    )


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
  # In a third of `np.clip`'s time.
  actions = np.minimum(np.maximum(actions, -1.0), 1.0)
  actions = 0.5 * (actions + 1.0)
  actions *= scale
  actions += offset
  return actions


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
  bound = np.asarray(none if bound is None else bound, spec.dtype)
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
