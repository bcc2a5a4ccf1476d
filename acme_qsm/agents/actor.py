"""The actor: a policy that acts by the newest parameters, on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent import futures
from typing import Any
from typing import Protocol

import dm_env
import jax
import numpy as np

from acme_qsm import types
from acme_qsm.agents.seed_axis import SeedAxis
from acme_qsm.core import Policy


class VariableSource(Protocol):
  """Who has parameters, such as a learner here or in another process."""

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns parameters by name, as many as there are names."""
    ...


class Adder(Protocol):
  """Who records what happens, such as Acme's adders."""

  def add_first(self, timestep: dm_env.TimeStep) -> None:
    """Starts an episode."""
    ...

  def add(
    self, action: np.ndarray, next_timestep: dm_env.TimeStep, extras: Any = ()
  ) -> None:
    """Adds a step, and what the policy gave beside the action by name."""
    ...


class VariableClient:
  """Asks a source for parameters, and keeps the last that it was given."""

  def __init__(
    self,
    source: VariableSource,
    name: str,
    update_period: int = 1,
    num_seeds: int = 1,
  ):
    """Initialises the client; asks nothing yet.

    Args:
      source: whom to ask; from one thread at a time, though not always from the
        same.
      name: of the parameters.
      update_period: calls of `update` per request, positive.
      num_seeds: S, the seeds that the source has parameters of; each array
        [S, ...] if several.
    """
    self._source = source
    self._name = name
    self._update_period = update_period
    self._axis = SeedAxis(num_seeds)
    self._num_calls = np.zeros(num_seeds, int)
    self._params: types.Params = None
    # Its thread starts with the first request that is not waited for.
    self._executor = futures.ThreadPoolExecutor(1, "variables")
    self._request: futures.Future | None = None

  @property
  def params(self) -> types.Params:
    """The parameters, on the CPU; asks for them if there are none yet."""
    if self._params is None:
      self._finish_request()
    if self._params is None:
      self._ask([True] * self._axis.size)
    return self._params

  def update(
    self, wait: bool = False, takes_part: Sequence[bool] = (True,)
  ) -> None:
    """Asks for new parameters, at every `update_period`-th call.

    Args:
      wait: whether to wait for them; else they are taken over as soon as they
        come, and no other request is made before.
      takes_part: [S] the seeds that it is called for; the others keep those
        that they have.

    Raises:
      Exception: what the source raised, also at a request not waited for.
    """
    if self._request is not None and self._request.done():
      self._finish_request()
    self._num_calls += takes_part
    due = takes_part & (self._num_calls >= self._update_period)
    if not due.any():
      return
    if wait:
      self._num_calls[due] = 0
      self._finish_request()
      self._ask(due)
    elif self._request is None:
      self._num_calls[due] = 0
      self._request = self._executor.submit(self._ask, due)

  def _finish_request(self) -> None:
    request, self._request = self._request, None
    if request is not None:
      request.result()

  def _ask(self, due: Sequence[bool]) -> None:
    """Has the newest parameters of the seeds that are due."""
    (params,) = self._source.get_variables([self._name])
    params = put_on_cpu(params)
    if self._params is not None:
      params = self._axis.where(due, params, self._params)
    self._params = params


def put_on_cpu(params: types.Params) -> types.Params:
  """Puts parameters where actors act."""
  # Parameters of a learner in this process are there already, where the CPU is
  # all there is; finding that out takes less than putting them there again.
  if jax.default_backend() == "cpu" and not any(
    isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params)
  ):
    return params
  return jax.device_put(params, acting_device())


def acting_device() -> Any:
  """Where actors act: the CPU, unless JAX was told to have none."""
  try:
    return jax.devices("cpu")[0]
  except RuntimeError:  # As by JAX_PLATFORMS=cuda.
    return jax.devices()[0]


class Actor:
  """Acts for S seeds, in E environments of each, all in one call.

  With one seed and one environment it has the methods of Acme's actors. A
  seed's random numbers are those that it has alone.

  Attributes:
    num_seeds: S.
  """

  def __init__(
    self,
    policy: Policy,
    random_keys: Sequence[jax.Array],
    variable_client: VariableClient,
    adders: Sequence[Sequence[Adder]] | None = None,
  ):
    """Initialises the actor.

    Args:
      policy: gives one seed's actions, and extras beside them.
      random_keys: PRNG key of each seed's actions.
      variable_client: has the policies' parameters, of all seeds.
      adders: for each seed, what records each of its environments' steps; None
        to record nothing.
    """
    self.num_seeds = len(random_keys)
    self._axis = axis = SeedAxis(self.num_seeds)
    # What is computed there with them stays on the CPU.
    self._random_keys = self._episode_keys = axis.stack(
      jax.device_put(list(random_keys), acting_device())
    )
    self._begins = [False] * axis.size
    self._variable_client = variable_client
    self._adders = adders
    self._extras: dict[str, np.ndarray] = {}
    self._split = jax.jit(axis.map(_split))
    self._act = jax.jit(axis.map(functools.partial(_act, policy)))

  @property
  def params(self) -> types.Params:
    """The parameters that it acts by."""
    return self._variable_client.params

  def observe_first(
    self, timestep: dm_env.TimeStep, seed: int = 0, environment: int = 0
  ) -> None:
    """Starts an episode, in one of a seed's environments."""
    if environment == 0:
      # It says for all of the seed's when a key begins, at the next action.
      self._begins[seed] = True
    if self._adders is not None:
      self._adders[seed][environment].add_first(timestep)

  def select_action(self, observation: np.ndarray) -> np.ndarray:
    """Acts, for one seed in one environment.

    Args:
      observation: [...] an observation; `observe_first` was called before.

    Returns:
      The action [A].
    """
    return self.select_actions([[observation]])[0][0]

  def select_actions(
    self, observations: Sequence[Sequence[np.ndarray]]
  ) -> list[np.ndarray]:
    """Acts for all seeds at once.

    Args:
      observations: for each seed those of its first environments; of none, if
        the seed is not to act, which uses up none of its random numbers.

    Returns:
      For each seed the actions [E, A] for its observations.
    """
    axis = self._axis
    acts = [len(each) > 0 for each in observations]
    begins = [*map(all, zip(self._begins, acts, strict=True))]
    if any(begins):
      self._begins = [
        later and not now
        for later, now in zip(self._begins, begins, strict=True)
      ]
      keys = (self._random_keys, self._episode_keys)
      keys = axis.where(begins, self._split(self._random_keys), keys)
      self._random_keys, self._episode_keys = keys
    actions, extras, next_keys = self._act(
      self.params, self._episode_keys, _stack(axis, observations)
    )
    self._episode_keys = axis.where(acts, next_keys, self._episode_keys)
    if self._adders is not None:
      self._extras = {name: axis.rows(each) for name, each in extras.items()}
    return [
      each[: len(own)]
      for each, own in zip(axis.rows(actions), observations, strict=True)
    ]

  def observe(
    self,
    action: np.ndarray,
    next_timestep: dm_env.TimeStep,
    seed: int = 0,
    environment: int = 0,
  ) -> None:
    """Records a step, with what the policy gave beside the action."""
    if self._adders is None:
      return
    adder = self._adders[seed][environment]
    if not self._extras:
      adder.add(action, next_timestep)
      return
    extras = {
      name: each[seed, environment] for name, each in self._extras.items()
    }
    adder.add(action, next_timestep, extras)

  def update(
    self, wait: bool = False, takes_part: Sequence[bool] = (True,)
  ) -> None:
    """Asks for new parameters if it is time: see `VariableClient.update`."""
    self._variable_client.update(wait, takes_part)


def _stack(
  axis: SeedAxis, observations: Sequence[Sequence[np.ndarray]]
) -> np.ndarray:
  """Observations [S, E, ...] of all seeds, zeros where there is none."""
  # Made anew each time: JAX may read it where it is, when it gets there.
  if axis.size == 1:
    return np.stack(observations[0])
  num_envs = max(map(len, observations))
  shape = np.shape(next(each[0] for each in observations if len(each)))
  stacked = np.zeros((axis.size, num_envs, *shape), np.float32)
  for index, each in enumerate(observations):
    if len(each):
      stacked[index, : len(each)] = each
  return stacked


def _split(random_key: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The next random key of a seed, and that of an episode."""
  random_key, episode_key = jax.random.split(random_key)
  return random_key, episode_key


def _act(
  policy: Policy, params: types.Params, key: jax.Array, observations: jax.Array
) -> tuple[jax.Array, types.Extras, jax.Array]:
  """One seed's actions [E, A], extras [E, ...], and the key of the next."""
  action_key, next_key = jax.random.split(key)
  actions, extras = policy.apply(params, action_key, observations)
  return actions, extras, next_key
