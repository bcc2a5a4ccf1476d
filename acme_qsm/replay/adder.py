"""Makes packed n-step transitions of time steps, and inserts them in replay."""

import abc
from typing import Any

import numpy as np

from acme_qsm import types
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import EmbeddedReplay
from acme_qsm.replay.n_step import NStepTransitions


class TransitionAdder(abc.ABC):
  """Makes the n-step transitions of episodes and packs them.

  It has the methods of Acme's adders. Which transitions there are,
  `NStepTransitions` says; where they go, the subclass.
  """

  def __init__(self, codec: TransitionCodec, *, n_step: int, discount: float):
    """Initialises the adder.

    Args:
      codec: packs the transitions.
      n_step: n, the most environment steps a transition spans, at least 1.
      discount: the agent's discount per environment step.
    """
    self._codec = codec
    self._transitions = NStepTransitions(
      n_step,
      discount,
      observation_shape=codec.observation_shape,
      action_shape=codec.action_shape,
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
      extras: what the policy says beside the action: nothing.

    Raises:
      ValueError: if `add_first` was not called before, or if there are extras,
        which have no place in replay.
      InvalidValueError: if the action, the reward, the discount or the
        observation is none that the spec allows, or (a NonFiniteError) has a
        NaN, an infinity or a number beyond float32; nothing of the step is
        written.
    """
    if types.are_given(extras):
      raise ValueError(
        f"A step's extras have no place in replay, got {extras!r}."
      )
    if not self._transitions.in_episode:
      raise ValueError("add_first must be called before add.")
    transitions = self._transitions.add(
      action,
      next_timestep.reward,
      next_timestep.discount,
      next_timestep.observation,
      next_timestep.last(),
    )
    self._write(np.stack([self._codec.pack(each) for each in transitions]))

  def reset(self) -> None:
    """Forgets the episode; what was written stays."""
    self._transitions.reset()

  @abc.abstractmethod
  def flush(self) -> None:
    """Waits until all that was written has arrived in replay."""

  @abc.abstractmethod
  def _write(self, rows: np.ndarray) -> None:
    """Writes packed transitions [k, D]."""


class EmbeddedAdder(TransitionAdder):
  """Inserts the n-step transitions of episodes into this process's replay."""

  def __init__(
    self,
    replay: EmbeddedReplay,
    codec: TransitionCodec,
    *,
    n_step: int,
    discount: float,
  ):
    """Initialises the adder.

    Args:
      replay: where the transitions go.
      codec: packs the transitions.
      n_step: n, the most environment steps a transition spans, at least 1.
      discount: the agent's discount per environment step.
    """
    super().__init__(codec, n_step=n_step, discount=discount)
    self._replay = replay

  def flush(self) -> None:
    """Waits for nothing: transitions are in replay when `add` returns."""

  def _write(self, rows: np.ndarray) -> None:
    self._replay.insert(rows)
