"""Whether time steps can be used: stored as they are, or acted on."""

from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

import dm_env
import numpy as np
import tree

from acme_qsm import specs
from acme_qsm.environments import wrappers
from acme_qsm.replay import validation
from acme_qsm.types import InvalidValueError


class Checked(wrappers.EnvironmentWrapper):
  """An environment whose time steps can be used, where replay sees none.

  What an adder finds out of those that it records, such as a reward of None, is
  found out here, and said in the same words.
  """

  def __init__(
    self, environment: dm_env.Environment, observation_spec: Any, where: str
  ):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.
      observation_spec: what observations are to be: of an array of float32,
        what is given is turned into one; others are left as they are.
      where: what errors begin with.
    """
    super().__init__(environment)
    self._where = where
    self._shape: tuple[int, ...] | None = None
    if getattr(observation_spec, "dtype", None) == np.float32:
      self._shape = tuple(observation_spec.shape)
    self._step = 0

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode.

    Raises:
      InvalidValueError: if the observation is none that the spec allows.
    """
    self._step = 0
    try:
      return self._check(self._environment.reset())
    except InvalidValueError as error:
      raise self._say_where(error) from error

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step; its reward is a float.

    Raises:
      InvalidValueError: if the reward is no number, or the observation is none
        that the spec allows.
    """
    self._step += 1
    try:
      timestep = self._environment.step(action)
      reward = validation.take_number("reward", timestep.reward, self._step)
      return self._check(timestep._replace(reward=reward))
    except InvalidValueError as error:
      raise self._say_where(error) from error

  def _say_where(self, error: InvalidValueError) -> InvalidValueError:
    return type(error)(f"{self._where}: {error}")

  def _check(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    if self._shape is None:
      return timestep
    observation = validation.take_array(
      "observation", timestep.observation, self._shape, self._step
    )
    return timestep._replace(observation=observation)


def require_storable(
  environment_spec: Any,
  environment: dm_env.Environment | None = None,
) -> None:
  """Raises unless replay of the types that a spec says can hold time steps.

  The tables of Acme's agents are such: precision is converted nowhere on the
  way there, so that Reverb refuses the first time step of another.

  Args:
    environment_spec: the environment's spec, whose parts may be nested.
    environment: makes a step, which must be as its spec says; None for no look
      at what it gives.

  Raises:
    ValueError: says which part is wrong, what it is and which wrapper helps.
  """
  for actions in tree.flatten(environment_spec.actions):
    specs.require_single_precision("actions", actions)
    if actions.dtype == np.int64:
      raise ValueError(f"actions must not be int64; {_wrap_in_single()}")
  if environment is not None:
    _require_as_specified(environment_spec, environment)


def _require_as_specified(
  environment_spec: Any, environment: dm_env.Environment
) -> None:
  """Raises ValueError unless a step is what the spec says."""
  action = tree.map_structure(
    lambda spec: spec.generate_value(), environment_spec.actions
  )
  first, second = environment.reset(), environment.step(action)
  observations = _kinds("observations", environment_spec.observations)
  discounts = _kinds("discounts", environment_spec.discounts)
  rewards = _promote(
    _kinds("rewards", environment_spec.rewards), discounts.values()
  )
  for specified, given in (
    (observations, _given("observations", first.observation)),
    (observations, _given("observations", second.observation)),
    (rewards, _given("rewards", second.reward)),
    (discounts, _given("discounts", second.discount)),
  ):
    for name in specified | given:
      _require_equal(name, specified.get(name), given.get(name))


class _Kind(NamedTuple):
  """What an array is, or is to be."""

  dtype: np.dtype
  shape: tuple[int, ...]

  def __str__(self) -> str:
    return f"{self.dtype} of shape {self.shape}"


def _kinds(name: str, nest: Any) -> dict[str, _Kind]:
  """What the parts of what may be nested are, by name."""
  return {
    name + "".join(f"[{key!r}]" for key in path): _Kind(
      np.dtype(leaf.dtype), tuple(leaf.shape)
    )
    for path, leaf in tree.flatten_with_path(nest)
  }


def _given(name: str, nest: Any) -> dict[str, _Kind]:
  """What the parts of what an environment gives are, by name."""
  return _kinds(name, tree.map_structure(np.asarray, nest))


def _promote(
  rewards: dict[str, _Kind], discounts: Iterable[_Kind]
) -> dict[str, _Kind]:
  """Rewards as Acme's n-step returns have them: as precise as discounts."""
  dtypes = [kind.dtype for kind in discounts]
  return {
    name: kind._replace(dtype=np.result_type(kind.dtype, *dtypes))
    if np.issubdtype(kind.dtype, np.floating)
    else kind
    for name, kind in rewards.items()
  }


def _require_equal(
  name: str, specified: _Kind | None, given: _Kind | None
) -> None:
  """Raises ValueError unless a part is there, and what it is to be."""
  if specified == given:
    return
  helps = specified and given and _single(specified) == _single(given)
  raise ValueError(
    f"{name} must be {specified or 'nothing'} as the specs say, got "
    f"{given or 'nothing'}{f'; {_wrap_in_single()}' if helps else '.'}"
  )


def _single(kind: _Kind) -> _Kind:
  """What an array is once it is in single precision."""
  return kind._replace(dtype=wrappers.SINGLE.get(kind.dtype, kind.dtype))


def _wrap_in_single() -> str:
  wrap = specs.wrap_in("SinglePrecision", "SinglePrecisionWrapper")
  return f"{wrap[:-1]}, around all other wrappers."
