"""Writes n-step transitions into Reverb."""

from typing import Any

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import numpy as np
import reverb

from acme_qsm.replay import reverb_tables
from acme_qsm.replay.adder import TransitionAdder
from acme_qsm.replay.codec import TransitionCodec

# Sent but not yet confirmed, at most.
_ITEMS_IN_FLIGHT = 5


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
  ):
    """Initialises the adder.

    Args:
      client: the replay server's client.
      codec: packs the transitions.
      n_step: n, the most environment steps a transition spans, at least 1.
      discount: the agent's discount per environment step.
      transitions_per_item: transitions written together, at least 1; until
        there are as many, across episodes, they wait here.
    """
    super().__init__(self._write, codec, n_step=n_step, discount=discount)
    self._client = client
    self._transitions_per_item = transitions_per_item
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
    reverb_tables.write_item(
      self._writer, reverb_tables.TABLE, item, _ITEMS_IN_FLIGHT
    )
