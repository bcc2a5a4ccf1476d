"""What an environment gives on its way to replay: taken, or named."""

import dm_env
import numpy as np
import pytest

from acme_qsm import types
from acme_qsm.replay import validation
from acme_qsm.replay.adder import TransitionAdder
from acme_qsm.replay.codec import TransitionCodec

FLOAT32_MAX = float(np.finfo(np.float32).max)


@pytest.fixture
def codec():
  return TransitionCodec(
    types.EnvironmentSpec(
      observations=types.ArraySpec((2,)), actions=types.ArraySpec((1,))
    )
  )


@pytest.fixture
def rows():
  """What is inserted."""
  return []


@pytest.fixture
def adder(codec, rows):
  return TransitionAdder(rows.extend, codec, n_step=3, discount=0.5)


def step(reward=1.0, discount=1.0, observation=(1.0, 2.0), last=False):
  return dm_env.TimeStep(
    dm_env.StepType.LAST if last else dm_env.StepType.MID,
    reward,
    discount,
    observation,
  )


def test_a_buffer_that_is_written_again(rows, adder):
  """Observations, rewards, discounts and actions in the same arrays."""
  observation, action = np.zeros(2, np.float32), np.zeros(1, np.float32)
  reward, discount = np.zeros(1), np.ones(())
  adder.add_first(dm_env.restart(observation))
  for t in range(1, 5):
    action[:], observation[:], reward[:] = 10 * t, t, 100 * t
    adder.add(action, step(reward, discount, observation, last=t == 4))
  expected = [
    # From, to, the actions between, their discounted rewards, the discount.
    (0, 1, 10, 100, 1.0),
    (0, 2, 10, 100 + 100, 0.5),
    (0, 3, 10, 100 + 100 + 75, 0.25),
    (1, 4, 20, 200 + 150 + 100, 0.25),
    (2, 4, 30, 300 + 200, 0.5),
    (3, 4, 40, 400, 1.0),
  ]
  np.testing.assert_array_equal(
    rows, [[a, a, action, r, d, b, b] for a, b, action, r, d in expected]
  )


@pytest.mark.parametrize(
  "reward",
  [
    2.0,
    2,
    np.float64(2.0),
    np.int64(2),
    np.array([2.0], np.float32),
    np.array([[2]]),
    [2.0],
  ],
  ids=repr,
)
def test_numbers_and_arrays_of_one_are_rewards(rows, adder, reward):
  adder.add_first(dm_env.restart([0.0, 0.0]))
  adder.add([0.0], step(reward, np.array([0.5])))
  assert list(rows[0][3:5]) == [2.0, 0.5]


NOT_ONE = r"; it must be one number\.$"
NO_NUMBERS = r"; it must be numbers\.$"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"reward": None}, f"^reward is None at step 2 of the episode{NO_NUMBERS}"),
    ({"reward": "1.0"}, f"^reward is of dtype <U3 at step 2 .*{NO_NUMBERS}"),
    ({"reward": {"a": 1.0}}, f"^reward is of dict at step 2 .*{NO_NUMBERS}"),
    ({"reward": 1j}, f"^reward is of dtype complex128 at .*{NO_NUMBERS}"),
    ({"reward": np.ones(3)}, rf"^reward has shape \(3,\) at .* 2 .*{NOT_ONE}"),
    ({"reward": []}, rf"^reward has shape \(0,\) at step 2 .*{NOT_ONE}"),
    ({"discount": None}, f"^discount is None at step 2 .*{NO_NUMBERS}"),
    ({"discount": 1.5}, r"^discount is 1\.5 at step 2 .* in \[0, 1\]\.$"),
    ({"discount": -0.5}, r"^discount is -0\.5 at step 2 .* in \[0, 1\]\.$"),
    (
      {"observation": np.zeros(3)},
      r"^observation has shape \(3,\) at step 2 of the episode; the spec says "
      r"\(2,\)\.$",
    ),
    ({"observation": np.zeros((1, 2))}, r"shape \(1, 2\) at step 2 of"),
    ({"observation": 1.0}, r"^observation has shape \(\) at step 2 of"),
    ({"observation": None}, f"^observation is None at step 2 .*{NO_NUMBERS}"),
    ({"observation": [[1], [1, 2]]}, "^observation is of list at step 2"),
    ({"observation": ("a", "b")}, "^observation is of dtype <U1 at step 2"),
    ({"action": [0.0, 0.0]}, r"^action has shape \(2,\) .* says \(1,\)"),
    # Finite, until they are packed.
    ({"reward": 1e39}, r"^reward is not finite in float32 at .* 2 .*: 1e\+39"),
    ({"reward": np.array([-1e300])}, r"in float32 at step 2.*: -1e\+300\.$"),
    ({"reward": np.nan}, r"^reward is not finite at step 2 .*: nan\.$"),
    ({"reward": np.float32(np.inf)}, r"not finite at step 2 .*: inf\.$"),
    ({"discount": np.nan}, r"^discount is not finite at step 2 .*: nan\.$"),
    (
      {"observation": [0.0, 1e39]},
      r"^observation is not finite in float32 at step 2 .*: \[1\] is 1e\+39\.$",
    ),
    (
      {"observation": [np.nan, -np.inf]},
      r"^observation is not finite at .*: \[0\] is nan, \[1\] is -inf\.$",
    ),
  ],
)
def test_what_no_transition_can_be_made_of(
  recwarn, rows, adder, changes, message
):
  adder.add_first(dm_env.restart([0.0, 0.0]))
  adder.add([0.0], step())
  with pytest.raises(types.InvalidValueError, match=message) as raised:
    adder.add(changes.pop("action", [0.0]), step(**changes))
  is_not_finite = "not finite" in str(raised.value)
  assert isinstance(raised.value, types.NonFiniteError) == is_not_finite
  assert "\n" not in str(raised.value)
  assert len(rows) == 1
  # Numpy has nothing to say of it.
  assert not recwarn.list


def test_rewards_whose_sum_is_too_large(rows, adder):
  adder.add_first(dm_env.restart([0.0, 0.0]))
  adder.add([0.0], step(FLOAT32_MAX))
  with pytest.raises(
    types.NonFiniteError,
    match=r"^reward, summed over 2 steps, is not finite in float32 at step 2 "
    r"of the episode: 5\.1\d+e\+38\.$",
  ):
    adder.add([0.0], step(FLOAT32_MAX))
  assert len(rows) == 1
  # The episode is forgotten.
  with pytest.raises(ValueError, match="add_first"):
    adder.add([0.0], step())


def test_of_many_components_some_are_shown():
  with pytest.raises(types.NonFiniteError) as raised:
    validation.take_array("observation", np.full((9, 9), np.nan), None, 7)
  assert str(raised.value) == (
    "observation is not finite at step 7 of the episode: [0, 0] is nan, [0, 1] "
    "is nan, [0, 2] is nan and 78 more."
  )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_arrays_are_copies_in_single_precision(dtype):
  given = np.array([1, 0], dtype)
  taken = validation.take_array("observation", given, (2,), 0)
  given[:] = 0
  assert taken.dtype == np.float32
  np.testing.assert_array_equal(taken, [1, 0])
