"""n-step transitions by themselves; with replay behind them, see the adder's.

Observations are the step's number, rewards powers of ten.
"""

import numpy as np
import pytest

from acme_qsm.replay.n_step import NStepTransitions
from acme_qsm.types import NonFiniteError


def observe(t):
  return np.float32([t])


def add_step(transitions, t, last_discount=None, discount=1.0, **changes):
  """Adds step t, the last one where a discount is given; returns rows.

  They are (from, to, reward, discount).
  """
  last = last_discount is not None
  completed = transitions.add(
    **{
      "action": np.float32([t / 10]),
      "reward": 10.0**t,
      "discount": last_discount if last else discount,
      "observation": observe(t + 1),
      "last": last,
      **changes,
    }
  )
  for each in completed:
    np.testing.assert_array_equal(each.action, each.observation / 10)
  return [
    (int(each.observation[0]), int(each.next_observation[0]), *each[2:4])
    for each in completed
  ]


@pytest.fixture
def transitions():
  made = NStepTransitions(n_step=3, discount=0.5)
  made.start(observe(0))
  return made


def test_each_step_completes_its_transitions(transitions):
  assert add_step(transitions, 0) == [(0, 1, 1.0, 1.0)]
  assert add_step(transitions, 1) == [(0, 2, 1.0 + 5.0, 0.5)]
  assert add_step(transitions, 2) == [(0, 3, 1.0 + 5.0 + 25.0, 0.25)]
  assert transitions.in_episode
  assert add_step(transitions, 3, last_discount=0.0) == [
    (1, 4, 10.0 + 50.0 + 250.0, 0.0),
    (2, 4, 100.0 + 500.0, 0.0),
    (3, 4, 1000.0, 0.0),
  ]
  assert not transitions.in_episode


def test_the_environments_discounts_multiply(transitions):
  assert add_step(transitions, 0, discount=0.5) == [(0, 1, 1.0, 0.5)]
  assert add_step(transitions, 1, last_discount=0.25) == [
    (0, 2, 1.0 + 0.25 * 10.0, 0.5 * 0.5 * 0.25),
    (1, 2, 10.0, 0.25),
  ]


def test_an_episode_that_is_forgotten(transitions):
  add_step(transitions, 0)
  transitions.start(observe(0))
  assert add_step(transitions, 0) == [(0, 1, 1.0, 1.0)]
  transitions.reset()
  with pytest.raises(ValueError, match="no episode"):
    add_step(transitions, 1)


@pytest.mark.parametrize(
  "changes",
  [
    {"action": np.float32([np.nan])},
    {"reward": np.inf},
    {"discount": np.nan},
    {"observation": np.float32([-np.inf])},
  ],
  ids=lambda changes: next(iter(changes)),
)
def test_what_is_not_finite_is_not_added(transitions, changes):
  add_step(transitions, 0)
  (name,) = changes
  with pytest.raises(NonFiniteError, match=f"^{name} .* step 2 of"):
    add_step(transitions, 1, **changes)
  # As if it had never been.
  assert add_step(transitions, 1) == [(0, 2, 6.0, 0.5)]


def test_no_episode_starts_from_what_is_not_finite(transitions):
  with pytest.raises(NonFiniteError, match=r"^observation .* step 0 of"):
    transitions.start(np.float32([np.nan]))
  with pytest.raises(ValueError, match="no episode"):
    add_step(transitions, 0)
