"""Acts for several seeds of an agent, all in one call."""

import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import types
from acme_qsm.agents.actor import Adder
from acme_qsm.agents.actor import select_actions
from acme_qsm.agents.actor import VariableClient


class SeedsActor:
  """Acts for S seeds, each by its own parameters, on the CPU.

  A seed's random numbers are those of an `Actor` with its key.
  """

  def __init__(
    self,
    policy: Callable[[types.Params, jax.Array, jax.Array], jax.Array],
    random_keys: Sequence[jax.Array],
    variable_client: VariableClient,
  ):
    """Initialises the actor.

    Args:
      policy: (params, key, observations [E, ...]) -> actions [E, A]; pure.
      random_keys: PRNG key of each seed's actions.
      variable_client: has the policies' parameters, each leaf [S, ...].
    """
    keys = jax.device_put(jnp.stack(random_keys), jax.devices("cpu")[0])
    self._random_keys = self._episode_keys = keys
    self._begins = np.zeros(len(random_keys), bool)
    self._variable_client = variable_client
    self._select_actions = jax.jit(
      jax.vmap(functools.partial(_select_actions, policy))
    )

  def begin(self, index: int) -> None:
    """Starts an episode of a seed's, before its next action."""
    self._begins[index] = True

  def select_actions(
    self, observations: np.ndarray, acts: Sequence[bool]
  ) -> np.ndarray:
    """Acts in E environments of each seed at once.

    Args:
      observations: [S, E, ...] observations.
      acts: [S] whether a seed acts; if not, its observations are not looked
        at, and none of its random numbers are used up.

    Returns:
      The actions [S, E, A]; of seeds that do not act, to be ignored.
    """
    acts = np.asarray(acts)
    begins = self._begins & acts
    self._begins = self._begins & ~acts
    actions, self._random_keys, self._episode_keys = self._select_actions(
      self._variable_client.params,
      self._random_keys,
      self._episode_keys,
      begins,
      acts,
      observations,
    )
    return np.asarray(actions)

  def update(self, wait: bool = False) -> None:
    """Asks for new parameters if it is time: see `VariableClient.update`."""
    self._variable_client.update(wait)


def _select_actions(
  policy: Callable[[types.Params, jax.Array, jax.Array], jax.Array],
  params: types.Params,
  random_key: jax.Array,
  episode_key: jax.Array,
  begins: jax.Array,
  acts: jax.Array,
  observations: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """One seed's actions [E, A] and next keys."""
  next_random_key, new_episode_key = jax.random.split(random_key)
  random_key = jnp.where(begins, next_random_key, random_key)
  episode_key = jnp.where(begins, new_episode_key, episode_key)
  actions, next_key = select_actions(policy, params, episode_key, observations)
  return actions, random_key, jnp.where(acts, next_key, episode_key)


class EnvironmentActor:
  """An environment's side of a `SeedsActor`: what its `Episodes` call."""

  def __init__(self, adder: Adder, begin: Callable[[], Any] = lambda: None):
    """Initialises it.

    Args:
      adder: records what happens.
      begin: called when an episode starts.
    """
    self._adder = adder
    self._begin = begin

  def observe_first(self, timestep: dm_env.TimeStep) -> None:
    """Starts an episode."""
    self._begin()
    self._adder.add_first(timestep)

  def observe(self, action: np.ndarray, next_timestep: dm_env.TimeStep) -> None:
    """Records a step."""
    self._adder.add(action, next_timestep)
