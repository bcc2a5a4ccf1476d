"""Acts for several seeds of an agent, all in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_qsm import types
from acme_qsm.agents.actor import acting_device
from acme_qsm.agents.actor import Adder
from acme_qsm.agents.actor import put_on_cpu
from acme_qsm.agents.actor import select_actions
from acme_qsm.agents.actor import VariableSource
from acme_qsm.core import Policy


class SeedsActor:
  """Acts for S seeds, each by its own parameters, on the CPU.

  A seed's parameters and random numbers are those of an `Actor` with its key,
  whose `update` is called with `wait`.
  """

  def __init__(
    self,
    policy: Policy,
    random_keys: Sequence[jax.Array],
    source: VariableSource,
    name: str,
    update_period: int = 1,
  ):
    """Initialises the actor.

    Args:
      policy: gives the actions, and extras beside them.
      random_keys: PRNG key of each seed's actions.
      source: has the policies' parameters, each leaf [S, ...].
      name: of the parameters.
      update_period: updates of a seed per request, positive.
    """
    keys = jax.device_put(jnp.stack(random_keys), acting_device())
    self._random_keys = self._episode_keys = keys
    self._begins = np.zeros(len(random_keys), bool)
    self._source = source
    self._name = name
    self._update_period = update_period
    self._num_updates = np.zeros(len(random_keys), int)
    self._params: types.Params = None
    self._extras: dict[str, np.ndarray] = {}
    self._select_params = jax.jit(jax.vmap(_select_params))
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
    acting = np.array(acts)
    begins = self._begins & acting
    self._begins = self._begins & ~acting
    if self._params is None:
      self._params = self._ask()
    actions, extras, self._random_keys, self._episode_keys = (
      self._select_actions(
        self._params,
        self._random_keys,
        self._episode_keys,
        begins,
        acting,
        observations,
      )
    )
    self._extras = jax.device_get(extras)
    return np.asarray(actions)

  def extras(self, seed: int, environment: int) -> dict[str, np.ndarray]:
    """What the policy gave beside an environment's last action, by name."""
    return {
      name: extra[seed, environment] for name, extra in self._extras.items()
    }

  def update(self, updates: Sequence[bool]) -> None:
    """Asks for new parameters, at every `update_period`-th update of a seed.

    Args:
      updates: [S] for which seeds; the others keep those that they have.
    """
    self._num_updates += np.array(updates)
    due = np.array(updates) & (self._num_updates >= self._update_period)
    if not np.any(due):
      return
    self._num_updates[due] = 0
    params = self._ask()
    if self._params is not None and not np.all(due):
      params = self._select_params(due, params, self._params)
    self._params = params

  def _ask(self) -> types.Params:
    (params,) = self._source.get_variables([self._name])
    return put_on_cpu(params)


def _select_params(
  is_due: jax.Array, new: types.Params, old: types.Params
) -> types.Params:
  """One seed's parameters."""
  return jax.tree.map(lambda x, y: jnp.where(is_due, x, y), new, old)


def _select_actions(
  policy: Policy,
  params: types.Params,
  random_key: jax.Array,
  episode_key: jax.Array,
  begins: jax.Array,
  acts: jax.Array,
  observations: jax.Array,
) -> tuple[jax.Array, types.Extras, jax.Array, jax.Array]:
  """One seed's actions [E, A], extras [E, ...] and next keys."""
  # As when an `Actor` starts an episode.
  begun_keys = jax.random.split(random_key)
  random_key = jax.lax.select(begins, begun_keys[0], random_key)
  episode_key = jax.lax.select(begins, begun_keys[1], episode_key)
  actions, extras, next_key = select_actions(
    policy, params, episode_key, observations
  )
  episode_key = jax.lax.select(acts, next_key, episode_key)
  return actions, extras, random_key, episode_key


class EnvironmentActor:
  """An environment's side of an actor that chooses for several of them."""

  def __init__(
    self,
    adder: Adder | None,
    extras: Callable[[], Mapping[str, np.ndarray]],
    begin: Callable[[], Any] = lambda: None,
  ):
    """Initialises it.

    Args:
      adder: records what happens; None to record nothing.
      extras: gives what the policy gave beside the environment's last action.
      begin: called when an episode starts.
    """
    self._adder = adder
    self._extras = extras
    self._begin = begin

  def observe_first(self, timestep: dm_env.TimeStep) -> None:
    """Starts an episode."""
    self._begin()
    if self._adder is not None:
      self._adder.add_first(timestep)

  def observe(self, action: np.ndarray, next_timestep: dm_env.TimeStep) -> None:
    """Records a step."""
    if self._adder is not None:
      self._adder.add(action, next_timestep, self._extras())
