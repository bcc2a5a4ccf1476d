"""Makes n-step transitions of an episode's steps. Needs numpy alone."""

import collections
from typing import Any

import numpy as np

from acme_qsm.types import NonFiniteError
from acme_qsm.types import Transition


class NStepTransitions:
  """Turns an episode's steps into transitions of up to n steps.

  For every step t of an episode of length T there is the transition from o_t to
  o_{min(t+n, T)}, and at the episode's start the shorter ones from o_0 to o_1,
  ..., o_{n-1}. The reward is sum_k discount^k r_{t+k+1}, with the environment's
  own discounts multiplied in; the discount is their product, times
  discount^(steps - 1).
  """

  def __init__(self, n_step: int, discount: float):
    """Initialises it; `start` comes before the first step.

    Args:
      n_step: n, the most environment steps a transition spans, at least 1.
      discount: the agent's discount per environment step.
    """
    self._discount = discount
    self._episode_step = 0
    # Of the last n steps: (observation, action, reward, discount).
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
      NonFiniteError: if it has a NaN or an infinity; no episode has started
        then.
    """
    self.reset()
    self._require_finite(observation=observation)
    self._observation = observation

  def add(
    self,
    action: np.ndarray,
    reward: float,
    discount: float,
    observation: np.ndarray,
    last: bool,
  ) -> list[Transition]:
    """Adds a step of the episode.

    Args:
      action: [A] the action taken.
      reward: what it gave.
      discount: the environment's own; 0 where nothing follows.
      observation: what is seen after it.
      last: whether it ends the episode.

    Returns:
      The transitions that it completes: one, and up to n - 1 more at the end.

    Raises:
      ValueError: if no episode has been started.
      NonFiniteError: if an argument has a NaN or an infinity; the step is then
        not added.
    """
    if not self.in_episode:
      raise ValueError("There is no episode to add a step to.")
    self._episode_step += 1
    self._require_finite(
      action=action, reward=reward, discount=discount, observation=observation
    )
    self._window.append(
      (self._observation, action, float(reward), float(discount))
    )
    self._observation = observation
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

  def _require_finite(self, **values: Any) -> None:
    for name, value in values.items():
      if not np.all(np.isfinite(value)):
        raise NonFiniteError(
          f"{name} is not finite at step {self._episode_step} of the episode: "
          f"{value}."
        )

  def _make_transition(self) -> Transition:
    """Makes the transition from the window's start to the observation."""
    observation, action, n_step_return, total_discount = self._window[0]
    for k in range(1, len(self._window)):
      _, _, reward, discount = self._window[k]
      total_discount *= self._discount
      n_step_return += total_discount * reward
      total_discount *= discount
    return Transition(
      observation, action, n_step_return, total_discount, self._observation
    )
