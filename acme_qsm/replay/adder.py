"""Writes n-step transitions into Reverb."""

from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dm_env
import numpy as np
import reverb
from acme import adders

from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.n_step import NStepTransitions
from acme_qsm.replay.reverb_tables import TABLE


class NStepTransitionAdder(adders.Adder):
  """Writes the n-step transitions of episodes, as Acme's adder does.

  Which ones there are, `NStepTransitions` says. An item of replay holds one or
  more of them, one behind the other.
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
    self._transitions = NStepTransitions(n_step, discount)
    self._transitions_per_item = transitions_per_item
    self._table = table
    self._max_in_flight_items = max_in_flight_items
    self._writer: reverb.TrajectoryWriter | None = None
    self._packed: list[np.ndarray] = []

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
    self._transitions.start(timestep.observation)

  def add(
    self,
    action: np.ndarray,
    next_timestep: dm_env.TimeStep,
    extras: tuple = (),
  ) -> None:
    """Adds a step, and the transitions that it completes.

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
    if not self._transitions.in_episode:
      raise ValueError("add_first must be called before add.")
    last = next_timestep.last()
    for transition in self._transitions.add(
      action,
      next_timestep.reward,
      next_timestep.discount,
      next_timestep.observation,
      last,
    ):
      self._packed.append(self._codec.pack(transition))
      self._write_if_full()
    if last and self._writer is not None:
      self._writer.end_episode()

  def reset(self) -> None:
    """Forgets the episode; what was written stays."""
    self._transitions.reset()
    if self._writer is not None:
      # Closing does not wait for what is on its way.
      self._writer.flush()
      self._writer.close()
      self._writer = None

  def flush(self) -> None:
    """Waits until all that was written has arrived in replay."""
    if self._writer is not None:
      self._writer.flush()

  def _write_if_full(self) -> None:
    """Writes what waits as an item, if it is as many as belong into one."""
    if len(self._packed) < self._transitions_per_item:
      return
    item = np.concatenate(self._packed)
    # Before it is written: an item that cannot be is not written twice.
    self._packed.clear()
    if self._writer is None:
      self._writer = self._client.trajectory_writer(num_keep_alive_refs=1)
    self._writer.append(item)
    history: Any = self._writer.history
    self._writer.create_item(self._table, priority=1.0, trajectory=history[-1])
    self._writer.flush(self._max_in_flight_items)
