"""Makes packed n-step transitions of time steps, and inserts them in replay."""

from collections.abc import Callable
from typing import Any

import numpy as np

from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.n_step import NStepTransitions


class TransitionAdder:
  """Makes the n-step transitions of episodes, packs and inserts them.

  It has the methods of Acme's adders. Which transitions there are,
  `NStepTransitions` says; that into Reverb is `reverb_adder.ReverbAdder`.
  """

  def __init__(
    self,
    insert: Callable[[np.ndarray], None],
    codec: TransitionCodec,
    *,
    n_step: int,
    discount: float,
  ):
    """Initialises the adder.

    Args:
      insert: takes packed transitions [k, D], such as an embedded replay's.
      codec: packs the transitions.
      n_step: n, the most environment steps a transition spans, at least 1.
      discount: the agent's discount per environment step.
    """
    self._insert = insert
    self._codec = codec
    self._transitions = NStepTransitions(
      n_step,
      discount,
      observation_shape=codec.observation_shape,
      action_shape=codec.action_shape,
      extras_spec=codec.extras_spec,
    )

  def add_first(self, timestep: Any) -> None:
    """Starts an episode.

    Args:
      timestep: the episode's first time step.

    Raises:
      ValueError: if it is not a first time step.
      InvalidValueError: if the observation is not of the spec's shape, or (a
        NonFiniteError) has a NaN, an infinity or a number beyond float32.
    """
    if not timestep.first():
      raise ValueError(f"add_first wants a first time step, got {timestep}.")
    self._transitions.start(timestep.observation)

  def add(
    self, action: np.ndarray, next_timestep: Any, extras: Any = ()
  ) -> None:
    """Adds a step, and the transitions that it completes.

    Args:
      action: [A] the action taken.
      next_timestep: the time step that the environment answered; its reward
        and discount are numbers, or arrays of one. What it holds is copied.
      extras: what the policy gave beside the action: arrays by name, those of
        the codec's `extras_spec`; () for none.

    Raises:
      ValueError: if `add_first` was not called before.
      InvalidValueError: if the action, the reward, the discount, the
        observation or an extra is none that the spec allows, or (a
        NonFiniteError) has a NaN, an infinity or a number beyond float32;
        nothing of the step is written.
    """
    if not self._transitions.in_episode:
      raise ValueError("add_first must be called before add.")
    transitions = self._transitions.add(
      action,
      next_timestep.reward,
      next_timestep.discount,
      next_timestep.observation,
      next_timestep.last(),
      extras,
    )
    self._insert(np.stack([self._codec.pack(each) for each in transitions]))

  def reset(self) -> None:
    """Forgets the episode; what was written stays."""
    self._transitions.reset()

  def flush(self) -> None:
    """Waits until all that was written has arrived in replay.

    An embedded replay has it when `add` returns.
    """
