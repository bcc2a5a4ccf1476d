"""Makes n-step transitions of an episode's steps. Needs numpy alone."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from acme_qsm.replay import validation
from acme_qsm.types import NonFiniteError
from acme_qsm.types import Transition


class NStepTransitions:
  """Turns an episode's steps into transitions of up to n steps.

  For every step t of an episode of length T there is the transition from o_t to
  o_{min(t+n, T)}, and at the episode's start the shorter ones from o_0 to o_1,
  ..., o_{n-1}. The reward is sum_k discount^k r_{t+k+1}, with the environment's
  own discounts multiplied in; the discount is their product, times
  discount^(steps - 1). The extras are those of the first step.
  """

  def __init__(
    self,
    n_step: int,
    discount: float,
    *,
    observation_shape: tuple[int, ...] | None = None,
    action_shape: tuple[int, ...] | None = None,
    extras_spec: Mapping[str, Any] = {},
  ):
    """Initialises it; `start` comes before the first step.

    Args:
      n_step: n, the most environment steps a transition spans, at least 1.
      discount: the agent's discount per environment step.
      observation_shape: what an observation's shape is to be; None for any.
      action_shape: what an action's shape is to be; None for any.
      extras_spec: by name, what has the shape and the dtype of a step's extra.
    """
    self._discount = discount
    self._observation_shape = observation_shape
    self._action_shape = action_shape
    self._extras_spec = extras_spec
    self._episode_step = 0
    # Of the last n steps: (observation, action, reward, discount, extras).
    self._window: collections.deque = collections.deque(maxlen=n_step)
    self._observation: Any = None

  @property
  def in_episode(self) -> bool:
    """Whether an episode has started and not ended."""
    return self._observation is not None

  def start(self, observation: np.ndarray) -> None:
    """Starts an episode; one that has not ended is forgotten.

    Args:
      observation: the episode's first.

    Raises:
      InvalidValueError: if it has another shape, or (a NonFiniteError) a NaN,
        an infinity or a number beyond float32; no episode has started then.
    """
    self.reset()
    self._observation = self._take_observation(observation)

  def add(
    self,
    action: np.ndarray,
    reward: float,
    discount: float,
    observation: np.ndarray,
    last: bool,
    extras: Any = (),
  ) -> list[Transition]:
    """Adds a step of the episode.

    Args:
      action: [A] the action taken.
      reward: what it gave: a number, or an array of one.
      discount: the environment's own in [0, 1]; 0 where nothing follows.
      observation: what is seen after it. Arrays are copied.
      last: whether it ends the episode.
      extras: what the policy gave beside the action, by name.

    Returns:
      The transitions that it completes: one, and up to n - 1 more at the end.

    Raises:
      ValueError: if no episode has been started.
      InvalidValueError: if an argument is none that replay can hold, or (a
        NonFiniteError) has a NaN, an infinity or a number beyond float32; the
        step is then not added.
      NonFiniteError: if a sum of rewards is beyond float32; the episode is then
        forgotten.
    """
    if not self.in_episode:
      raise ValueError("There is no episode to add a step to.")
    self._episode_step += 1
    step = (
      self._observation,
      validation.take_array(
        "action", action, self._action_shape, self._episode_step
      ),
      validation.take_number("reward", reward, self._episode_step),
      validation.take_discount(discount, self._episode_step),
      validation.take_extras(extras, self._extras_spec, self._episode_step)
      or (),
    )
    self._observation = self._take_observation(observation)
    self._window.append(step)
    transitions = [self._make_transition()]
    if last:
      self._window.popleft()
      while self._window:
        transitions.append(self._make_transition())
        self._window.popleft()
      self._observation = None
    return transitions

  def reset(self) -> None:
    """Forgets the episode."""
    self._window.clear()
    self._episode_step = 0
    self._observation = None

  def _take_observation(self, observation: Any) -> np.ndarray:
    return validation.take_array(
      "observation", observation, self._observation_shape, self._episode_step
    )

  def _make_transition(self) -> Transition:
    """Makes the transition from the window's start to the observation."""
    observation, action, n_step_return, total_discount, extras = self._window[0]
    for k in range(1, len(self._window)):
      _, _, reward, discount, _ = self._window[k]
      total_discount *= self._discount
      n_step_return += total_discount * reward
      total_discount *= discount
    try:
      validation.require_representable(
        f"reward, summed over {len(self._window)} steps,",
        n_step_return,
        self._episode_step,
      )
    except NonFiniteError:
      self.reset()
      raise
    return Transition(
      observation,
      action,
      n_step_return,
      total_discount,
      self._observation,
      extras,
    )
