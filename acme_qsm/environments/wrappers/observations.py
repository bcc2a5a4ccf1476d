"""Wrappers of observations."""

from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from acme_qsm import specs as specs_lib
from acme_qsm.environments import nests
from acme_qsm.environments.wrappers.base import EnvironmentWrapper

_FLOAT32 = np.dtype(np.float32)


class FloatObservations(EnvironmentWrapper):
  """Makes float32 of observations: numbers, arrays of any type, and nests.

  Flat, they are one vector: the parts of dictionaries follow each other by
  name, those of lists and tuples in their order, each flattened. Truth values
  are 0 and 1. Numbers are rounded to float32, integers beyond 2^24 among them.
  What float32 cannot hold, such as 1e39, stays as it is, so that whoever takes
  it can say what it was.
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
    spec = nests.require_numbers(environment.observation_spec())
    zeros = nests.map_leaves(lambda leaf, _: np.zeros(leaf.shape), spec, spec)
    size = sum(array.size for array in nests.take_arrays(spec, zeros, 0))
    if not size:
      raise ValueError(
        f"observations must not be empty, got {specs_lib.in_a_line(spec)}: "
        "give one that is always 0."
      )
    super().__init__(
      environment,
      observations=specs.BoundedArray(
        (size,), np.float32, -np.inf, np.inf, name="state"
      )
      if flatten
      else nests.map_leaves(_float_spec, spec, spec),
    )
    self._spec = spec
    self._flatten = flatten

  def _give(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    step_type, reward, discount, observation = timestep
    arrays = nests.take_arrays(self._spec, observation, self._num_steps)
    if self._flatten:
      # Without an axis, numbers are concatenated as well.
      observation = _to_float32(None, np.concatenate(arrays, None))
    else:
      observation = nests.map_leaves(_to_float32, self._spec, observation)
    return dm_env.TimeStep(step_type, reward, discount, observation)


def _to_float32(_: Any, value: Any) -> np.ndarray:
  return nests.convert_array(np.asarray(value), _FLOAT32)


def _float_spec(spec: Any, _: Any) -> specs.Array:
  return specs.Array(spec.shape, np.float32, name=spec.name)
