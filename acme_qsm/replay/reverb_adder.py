"""Writes n-step transitions into Reverb."""

from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import numpy as np
import reverb

from acme_qsm.replay.adder import TransitionAdder
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.reverb_tables import TABLE


class ReverbAdder(TransitionAdder):
  """Writes the n-step transitions of episodes, as Acme's adder does.

  An item of replay holds one or more of them, one behind the other.
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
    super().__init__(self._write, codec, n_step=n_step, discount=discount)
    self._client = client
    self._transitions_per_item = transitions_per_item
    self._table = table
    self._max_in_flight_items = max_in_flight_items
    self._writer: reverb.TrajectoryWriter | None = None
    self._packed: list[np.ndarray] = []

  def add(
    self, action: np.ndarray, next_timestep: Any, extras: Any = ()
  ) -> None:
    """Adds a step: see `TransitionAdder`."""
    super().add(action, next_timestep, extras)
    if next_timestep.last() and self._writer is not None:
      self._writer.end_episode()

  def reset(self) -> None:
    """Forgets the episode; what was written stays."""
    super().reset()
    if self._writer is not None:
      # Closing does not wait for what is on its way.
      self._writer.flush()
      self._writer.close()
      self._writer = None

  def flush(self) -> None:
    """Waits until all that was written has arrived in replay."""
    if self._writer is not None:
      self._writer.flush()

  def _write(self, rows: np.ndarray) -> None:
    """Writes as many items as there are transitions for; the rest waits."""
    for row in rows:
      self._packed.append(row)
      if len(self._packed) == self._transitions_per_item:
        self._write_item()

  def _write_item(self) -> None:
    item = np.concatenate(self._packed)
    # Before it is written: an item that cannot be is not written twice.
    self._packed.clear()
    if self._writer is None:
      self._writer = self._client.trajectory_writer(num_keep_alive_refs=1)
    self._writer.append(item)
    history: Any = self._writer.history
    self._writer.create_item(self._table, priority=1.0, trajectory=history[-1])
    self._writer.flush(self._max_in_flight_items)
