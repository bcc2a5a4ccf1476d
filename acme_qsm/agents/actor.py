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
from acme_qsm.core import Policy


class VariableSource(Protocol):
  """Who has parameters, such as a learner here or in another process."""

  def get_variables(self, names: Sequence[str]) -> list[Any]:
    """Returns parameters by name, as many as there are names."""
    ...


class Adder(Protocol):
  """Who records what happens."""

  def add_first(self, timestep: dm_env.TimeStep) -> None:
    """Starts an episode."""
    ...

  def add(
    self, action: np.ndarray, next_timestep: dm_env.TimeStep, extras: Any = ()
  ) -> None:
    """Adds a step, with what the policy gave beside the action."""
    ...


def select_actions(
  policy: Policy,
  params: types.Params,
  key: jax.Array,
  observations: jax.Array,
) -> tuple[jax.Array, types.Extras, jax.Array]:
  """Acts once in each of E environments.

  Args:
    policy: gives the actions, and extras beside them.
    params: the policy's parameters.
    key: a PRNG key, consumed.
    observations: [E, ...] observations.

  Returns:
    The actions [E, A], the policy's extras by name [E, ...], and the key of the
    next actions.
  """
  action_key, next_key = jax.random.split(key)
  actions, extras = policy.apply(params, action_key, observations)
  return actions, extras, next_key


class VariableClient:
  """Asks a source for parameters, and keeps the last that it was given."""

  def __init__(self, source: VariableSource, name: str, update_period: int = 1):
    """Initialises the client; asks nothing yet.

    Args:
      source: whom to ask; from one thread at a time, though not always from the
        same.
      name: of the parameters.
      update_period: calls of `update` per request, positive.
    """
    self._source = source
    self._name = name
    self._update_period = update_period
    self._num_calls = 0
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
      self._ask()
    return self._params

  def update(self, wait: bool = False) -> None:
    """Asks for new parameters, at every `update_period`-th call.

    Args:
      wait: whether to wait for them; else they are taken over as soon as they
        come, and no other request is made before.

    Raises:
      Exception: what the source raised, also at a request not waited for.
    """
    if self._request is not None and self._request.done():
      self._finish_request()
    self._num_calls += 1
    if self._num_calls < self._update_period:
      return
    if wait:
      self._num_calls = 0
      self._finish_request()
      self._ask()
    elif self._request is None:
      self._num_calls = 0
      self._request = self._executor.submit(self._ask)

  def _finish_request(self) -> None:
    request, self._request = self._request, None
    if request is not None:
      request.result()

  def _ask(self) -> None:
    (params,) = self._source.get_variables([self._name])
    self._params = put_on_cpu(params)


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
  """Acts in one environment; has the methods of Acme's actors."""

  def __init__(
    self,
    policy: Policy,
    random_key: jax.Array,
    variable_client: VariableClient,
    adder: Adder | None = None,
  ):
    """Initialises the actor.

    Args:
      policy: gives the actions, and extras beside them.
      random_key: PRNG key of its actions.
      variable_client: has the policy's parameters.
      adder: records what happens; None to record nothing.
    """
    # What is computed there with it stays on the CPU.
    self._random_key = jax.device_put(random_key, acting_device())
    self._episode_key: jax.Array | None = None
    self._variable_client = variable_client
    self._adder = adder
    self._extras: dict[str, np.ndarray] = {}
    self._select_actions = jax.jit(functools.partial(select_actions, policy))

  @property
  def params(self) -> types.Params:
    """The parameters that it acts by."""
    return self._variable_client.params

  def observe_first(self, timestep: dm_env.TimeStep) -> None:
    """Starts an episode."""
    self._random_key, self._episode_key = jax.random.split(self._random_key)
    if self._adder is not None:
      self._adder.add_first(timestep)

  def select_action(self, observation: np.ndarray) -> np.ndarray:
    """Acts.

    Args:
      observation: [...] an observation; `observe_first` was called before.

    Returns:
      The action [A].
    """
    return self.select_actions(np.asarray(observation)[np.newaxis])[0]

  def select_actions(self, observations: np.ndarray) -> np.ndarray:
    """Acts in several environments at once.

    Args:
      observations: [E, ...] observations; `observe_first` was called before.

    Returns:
      The actions [E, A].
    """
    actions, extras, self._episode_key = self._select_actions(
      self.params, self._episode_key, observations
    )
    self._extras = jax.device_get(extras)
    return np.asarray(actions)

  def extras(self, index: int = 0) -> dict[str, np.ndarray]:
    """What the policy gave beside an environment's last action, by name."""
    return {name: extra[index] for name, extra in self._extras.items()}

  def observe(self, action: np.ndarray, next_timestep: dm_env.TimeStep) -> None:
    """Records a step, of the first environment where there are several."""
    if self._adder is not None:
      self._adder.add(action, next_timestep, self.extras())

  def update(self, wait: bool = False) -> None:
    """Asks for new parameters if it is time: see `VariableClient.update`."""
    self._variable_client.update(wait)
