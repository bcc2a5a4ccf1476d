"""What all wrappers are: an environment around another one."""

from typing import Any

import dm_env

from acme_qsm import specs as specs_lib


class EnvironmentWrapper(dm_env.Environment):
  """An environment around another one, like it in all that it does not change.

  A wrapper states the specs that it changes when it is made, and overrides
  `_take` for actions on their way in and `_give` for time steps on their way
  out. Attributes that it does not have are those of the environment inside.
  """

  def __init__(self, environment: dm_env.Environment, **specs: Any):
    """Initialises the wrapper.

    Args:
      environment: the environment inside.
      **specs: those that are not the environment's own: `observations`,
        `actions`, `rewards` or `discounts`.
    """
    self._environment = environment
    self._specs = specs_lib.make_environment_spec(environment)._replace(**specs)
    self._num_steps = 0  # Of the episode.

  def __getattr__(self, name: str) -> Any:
    # Python asks for such names to copy an object, before it has attributes.
    if name.startswith("__"):
      raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
    return getattr(self._environment, name)

  @property
  def environment(self) -> dm_env.Environment:
    """The environment inside."""
    return self._environment

  def _take(self, action: Any) -> Any:
    """Turns an action into what the environment inside takes."""
    return action

  def _give(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    """Turns a time step of the environment inside into this one's."""
    return timestep

  def reset(self) -> dm_env.TimeStep:
    """Begins an episode.

    Raises:
      InvalidValueError: if the environment gives what its specs rule out.
    """
    self._num_steps = 0
    return self._give(self._environment.reset())

  def step(self, action: Any) -> dm_env.TimeStep:
    """Makes a step.

    Raises:
      InvalidValueError: if the environment gives what its specs rule out.
    """
    self._num_steps += 1
    return self._give(self._environment.step(self._take(action)))

  def close(self) -> None:
    """Closes the environment inside."""
    self._environment.close()

  def observation_spec(self) -> Any:
    """The observations' spec."""
    return self._specs.observations

  def action_spec(self) -> Any:
    """The actions' spec."""
    return self._specs.actions

  def reward_spec(self) -> Any:
    """The rewards' spec."""
    return self._specs.rewards

  def discount_spec(self) -> Any:
    """The discounts' spec."""
    return self._specs.discounts
