"""Makes packed n-step transitions of time steps, and inserts them in replay."""

import collections
from collections.abc import Callable
from typing import Any

import numpy as np

from acme_qsm.replay import n_step as n_step_lib
from acme_qsm.replay import validation
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.types import NonFiniteError
from acme_qsm.types import Transition


class TransitionAdder:
  """Makes the n-step transitions of episodes, packs and inserts them.

  For every step t of an episode of length T there is the transition from o_t to
  o_{min(t+n, T)}, and at the episode's start the shorter ones from o_0 to o_1,
  ..., o_{n-1}. It has the methods of Acme's adders; for Reverb there is
  `reverb_adder.ReverbAdder`.
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
    self._discount = discount
    # The last n steps, each a transition by itself.
    self._steps: collections.deque[Transition] = collections.deque(
      maxlen=n_step
    )
    self._num_steps = 0
    # None where no episode has started.
    self._observation: np.ndarray | None = None

  def add_first(self, timestep: Any) -> None:
    """Starts an episode; one that has not ended is forgotten.

    Args:
      timestep: the episode's first time step.

    Raises:
      ValueError: if it is not a first time step.
      InvalidValueError: if the observation is not of the spec's shape, or (a
        NonFiniteError) has a NaN, an infinity or a number beyond float32; no
        episode has started then.
    """
    if not timestep.first():
      raise ValueError(f"add_first wants a first time step, got {timestep}.")
    self._forget_episode()
    self._observation = self._take_observation(timestep, 0)

  def add(
    self, action: np.ndarray, next_timestep: Any, extras: Any = ()
  ) -> None:
    """Adds a step, and the transitions that it completes.

    Those are one, and up to n - 1 more at the episode's end.

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
        NonFiniteError) has a NaN, an infinity or a number beyond float32; the
        step is not added then.
      NonFiniteError: if a sum of rewards is beyond float32; the episode is
        forgotten then.
    """
    if self._observation is None:
      raise ValueError("add_first must be called before add.")
    number = self._num_steps + 1
    step = Transition(
      self._observation,
      validation.take_array("action", action, self._codec.action_shape, number),
      validation.take_number("reward", next_timestep.reward, number),
      validation.take_discount(next_timestep.discount, number),
      self._take_observation(next_timestep, number),
      validation.take_extras(extras, self._codec.extras_spec, number),
    )
    self._steps.append(step)
    self._num_steps = number
    self._observation = step.next_observation
    last = next_timestep.last()
    steps = list(self._steps)
    starts = range(len(steps)) if last else [0]
    transitions = [self._join(steps[start:]) for start in starts]
    if last:
      self._forget_episode()
    self._insert(np.stack([self._codec.pack(each) for each in transitions]))

  def reset(self) -> None:
    """Forgets the episode; what was written stays."""
    self._forget_episode()

  def flush(self) -> None:
    """Waits until all that was written has arrived in replay.

    An embedded replay has it when `add` returns.
    """

  def _take_observation(self, timestep: Any, number: int) -> np.ndarray:
    return validation.take_array(
      "observation", timestep.observation, self._codec.observation_shape, number
    )

  def _join(self, steps: list[Transition]) -> Transition:
    transition = n_step_lib.join_steps(steps, self._discount)
    try:
      validation.require_representable(
        f"reward, summed over {len(steps)} steps,",
        transition.reward,
        self._num_steps,
      )
    except NonFiniteError:
      self._forget_episode()
      raise
    return transition

  def _forget_episode(self) -> None:
    self._steps.clear()
    self._num_steps = 0
    self._observation = None
