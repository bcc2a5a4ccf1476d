"""A wrapper of all that is in double precision."""

import functools
from typing import Any

import dm_env
import numpy as np

from acme_qsm import specs as specs_lib
from acme_qsm.environments import nests
from acme_qsm.environments.wrappers.base import EnvironmentWrapper

SINGLE = {
  np.dtype(np.float64): np.dtype(np.float32),
  np.dtype(np.int64): np.dtype(np.int32),
}
"""What `SinglePrecision` turns a dtype into, if not itself."""


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
    inside = specs_lib.make_environment_spec(environment)
    outside = inside._asdict()
    for name, spec in outside.items():
      outside[name] = nests.map_leaves(_convert_spec, spec, spec)
    super().__init__(environment, **outside)
    self._observation_spec = inside.observations
    self._convert_action = None
    # A wrapper inside that converts actions needs them as they are given.
    if not getattr(environment, "converts_actions", False) and (
      outside["actions"] != inside.actions
    ):
      self._convert_action = functools.partial(
        nests.map_leaves, _as_specified, inside.actions
      )

  def _take(self, action: Any) -> Any:
    return self._convert_action(action) if self._convert_action else action

  def _give(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
      step_type,
      _convert(None, reward),
      _convert(None, discount),
      nests.map_leaves(_convert, self._observation_spec, observation),
    )


def _convert_spec(spec: Any, _: Any) -> Any:
  dtype = SINGLE.get(np.dtype(spec.dtype))
  return spec if dtype is None else spec.replace(dtype=dtype)


def _convert(spec: Any, value: Any) -> Any:
  """A number or an array in single precision, whatever its spec says."""
  del spec
  if value is None:  # A first time step's reward and discount.
    return None
  value = np.asarray(value)
  dtype = SINGLE.get(value.dtype)
  return value if dtype is None else nests.convert_array(value, dtype)


def _as_specified(spec: Any, value: Any) -> np.ndarray:
  return np.asarray(value, spec.dtype)
