"""Wrappers of rewards and discounts."""

from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_qsm import specs as specs_lib
from acme_qsm.environments import nests
from acme_qsm.environments.wrappers.base import EnvironmentWrapper


class ScalarRewards(EnvironmentWrapper):
  """Makes float32 of rewards and discounts: numbers, or arrays of one.

  Those that are neither are left to whoever takes them, who says when it was;
  so is what float32 cannot hold.
  """

  def __init__(self, environment: dm_env.Environment):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.

    Raises:
      ValueError: if rewards or discounts are something else.
    """
    super().__init__(
      environment,
      rewards=_scalar_spec("rewards", environment.reward_spec()),
      discounts=_scalar_spec("discounts", environment.discount_spec()),
    )

  def _give(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
      step_type, _as_scalar(reward), _as_scalar(discount), observation
    )


def _scalar_spec(name: str, spec: Any) -> specs.Array:
  """The spec of a number that is one, or in an array of one."""
  is_number = specs_lib.is_array(spec) and np.dtype(spec.dtype).kind in "biuf"
  if not is_number or int(np.prod(spec.shape)) != 1:
    raise ValueError(
      f"{name} must be one number, got {specs_lib.in_a_line(spec)}."
    )
  if not isinstance(spec, specs.BoundedArray):
    return specs.Array((), np.float32, spec.name)
  return specs.BoundedArray(
    (), np.float32, np.min(spec.minimum), np.max(spec.maximum), spec.name
  )


def _as_scalar(value: Any) -> Any:
  """A number as a float32 without axes; what is none as it is."""
  if value is None:
    return None
  array = np.asarray(value)
  if array.size != 1 or array.dtype.kind not in "biuf":
    return value
  return nests.convert_array(array.reshape(()), np.dtype(np.float32))
