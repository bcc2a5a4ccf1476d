"""Writes n-step transitions into Reverb, and reads them back.

A transition is one float32 vector there, [observation, action, reward,
discount, next_observation]: Reverb decodes each column of an item by itself, so
that one column is sampled two to three times as fast as five. An item holds one
or more of them, one behind the other.
"""

import collections
from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import reverb
import tensorflow as tf
from acme import adders
from acme import specs

from acme_qsm.types import NonFiniteError
from acme_qsm.types import Transition

TABLE = "transitions"
"""The name of the Reverb table that transitions are written to."""


class TransitionCodec:
  """Packs transitions into vectors and unpacks batches of them."""

  def __init__(self, environment_spec: specs.EnvironmentSpec):
    """Initialises the codec.

    Args:
      environment_spec: what sets the shapes.

    Raises:
      ValueError: if observations are not float32.
    """
    observations = environment_spec.observations
    if np.dtype(observations.dtype) != np.float32:
      raise ValueError(
        "observations must be float32 to be stored in replay, got dtype "
        f"{np.dtype(observations.dtype)}."
      )
    self._observation_shape = tuple(observations.shape)
    observation_size = int(np.prod(self._observation_shape))
    (action_size,) = environment_spec.actions.shape
    sizes = (observation_size, action_size, 1, 1, observation_size)
    self._ends = np.cumsum(sizes)

  def signature(self, transitions_per_item: int = 1) -> tf.TensorSpec:
    """The signature of a Reverb table of packed transitions."""
    return tf.TensorSpec((transitions_per_item * self._ends[-1],), tf.float32)

  def pack(self, transition: Transition) -> np.ndarray:
    """Packs one transition (without a batch axis) into a float32 vector."""
    return np.concatenate(
      [np.ravel(np.asarray(part, np.float32)) for part in transition]
    )

  def unpack(self, packed: jax.Array) -> Transition:
    """Unpacks a batch [B, D] into transitions."""
    observation, action, reward, discount, next_observation = jnp.split(
      packed, self._ends[:-1], axis=1
    )
    shape = (packed.shape[0], *self._observation_shape)
    return Transition(
      observation=observation.reshape(shape),
      action=action,
      reward=reward[:, 0],
      discount=discount[:, 0],
      next_observation=next_observation.reshape(shape),
    )


class NStepTransitionAdder(adders.Adder):
  """Writes the n-step transitions of episodes, as Acme's adder does.

  For every step t of an episode of length T there is the transition from o_t to
  o_{min(t+n, T)}, and at the episode's start the shorter ones from o_0 to o_1,
  ..., o_{n-1}. The reward is sum_k discount^k r_{t+k+1}, with the environment's
  own discounts multiplied in; the discount is their product, times
  discount^(steps - 1).
  """

  def __init__(
    self,
    client: reverb.Client,
    codec: TransitionCodec,
    *,
    n_step: int,
    discount: float,
    transitions_per_item: int = 1,
    table: str = TABLE,
    max_in_flight_items: int = 5,
  ):
    """Initialises the adder.

    Args:
      client: the replay server's client.
      codec: packs the transitions.
      n_step: n, the most environment steps a transition spans, at least 1.
      discount: the agent's discount per environment step.
      transitions_per_item: transitions written together, at least 1; until
        there are as many, across episodes, they wait here.
      table: the name of the table to write to.
      max_in_flight_items: items sent but not yet confirmed, at most.
    """
    self._client = client
    self._codec = codec
    self._discount = discount
    self._transitions_per_item = transitions_per_item
    self._table = table
    self._max_in_flight_items = max_in_flight_items
    self._writer: reverb.TrajectoryWriter | None = None
    self._packed: list[np.ndarray] = []
    self._episode_step = 0
    # Of the last n steps: (observation, action, reward, discount).
    self._window: collections.deque = collections.deque(maxlen=n_step)
    self._observation: np.ndarray | None = None

  def add_first(self, timestep: dm_env.TimeStep) -> None:
    """Starts an episode.

    Args:
      timestep: the episode's first time step.

    Raises:
      ValueError: if it is not a first time step.
      NonFiniteError: if the observation has a NaN or an infinity.
    """
    if not timestep.first():
      raise ValueError(f"add_first wants a first time step, got {timestep}.")
    self._window.clear()
    self._episode_step = 0
    self._require_finite(observation=timestep.observation)
    self._observation = timestep.observation

  def add(
    self,
    action: np.ndarray,
    next_timestep: dm_env.TimeStep,
    extras: tuple = (),
  ) -> None:
    """Adds a step, and the transition that it completes.

    Args:
      action: [A] the action taken.
      next_timestep: what the environment answered.
      extras: ignored.

    Raises:
      ValueError: if `add_first` was not called before.
      NonFiniteError: if the action, the reward, the discount or the observation
        has a NaN or an infinity; nothing of the step is written.
    """
    del extras
    if self._observation is None:
      raise ValueError("add_first must be called before add.")
    self._episode_step += 1
    self._require_finite(
      action=action,
      reward=next_timestep.reward,
      discount=next_timestep.discount,
      observation=next_timestep.observation,
    )
    self._window.append(
      (
        self._observation,
        action,
        float(next_timestep.reward),
        float(next_timestep.discount),
      )
    )
    self._observation = next_timestep.observation
    self._add_transition()
    if next_timestep.last():
      self._window.popleft()
      while self._window:
        self._add_transition()
        self._window.popleft()
      if self._writer is not None:
        self._writer.end_episode()
      self._observation = None

  def reset(self) -> None:
    """Forgets the episode; what was written stays."""
    self._window.clear()
    self._observation = None
    if self._writer is not None:
      # Closing does not wait for what is on its way.
      self._writer.flush()
      self._writer.close()
      self._writer = None

  def flush(self) -> None:
    """Waits until all that was written has arrived in replay."""
    if self._writer is not None:
      self._writer.flush()

  def _require_finite(self, **values: np.ndarray) -> None:
    for name, value in values.items():
      if not np.all(np.isfinite(value)):
        raise NonFiniteError(
          f"{name} is not finite at step {self._episode_step} of the episode: "
          f"{value}."
        )

  def _add_transition(self) -> None:
    """Adds the transition from the window's start to the observation."""
    observation, action, n_step_return, total_discount = self._window[0]
    for k in range(1, len(self._window)):
      _, _, reward, discount = self._window[k]
      total_discount *= self._discount
      n_step_return += total_discount * reward
      total_discount *= discount
    self._packed.append(
      self._codec.pack(
        Transition(
          observation, action, n_step_return, total_discount, self._observation
        )
      )
    )
    if len(self._packed) == self._transitions_per_item:
      item = np.concatenate(self._packed)
      self._packed.clear()
      self._write_item(item)

  def _write_item(self, item: np.ndarray) -> None:
    if self._writer is None:
      self._writer = self._client.trajectory_writer(num_keep_alive_refs=1)
    self._writer.append(item)
    history: Any = self._writer.history
    self._writer.create_item(self._table, priority=1.0, trajectory=history[-1])
    self._writer.flush(self._max_in_flight_items)
