"""The adders against paper: into this process's replay, and into Reverb."""

import dm_env
import numpy as np
import pytest

from acme_qsm import types
from acme_qsm.replay.adder import EmbeddedAdder
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import EmbeddedReplay
from acme_qsm.replay.pacing import Pace
from tests.replay.contents import make_queue
from tests.replay.contents import rows_of
from tests.replay.contents import take_all

REWARDS = (1.0, 10.0, 100.0, 1000.0, 10000.0)


class EmbeddedRecorder:
  """An adder, and what it has written into this process's replay."""

  def __init__(self, codec):
    self._replay = EmbeddedReplay(codec.size, 1_000, Pace(1.0, 1, 0.0, 1.0))
    self._num_taken = 0
    self.adder = EmbeddedAdder(self._replay, codec, n_step=3, discount=0.5)

  def size(self):
    return self._replay.size()

  def take_all(self):
    """What was written since it was asked last, in order."""
    rows = rows_of(self._replay)[self._num_taken :]
    self._num_taken += len(rows)
    return rows


class ReverbRecorder:
  """An adder, and what it has written into Reverb."""

  def __init__(self, codec, serve):
    from acme_qsm.replay.reverb_adder import NStepTransitionAdder
    from acme_qsm.replay.reverb_tables import make_signature
    from acme_qsm.replay.reverb_tables import TABLE

    self._table = TABLE
    self._client = serve(make_queue(TABLE, make_signature(codec)))
    self.adder = NStepTransitionAdder(
      self._client, codec, n_step=3, discount=0.5
    )

  def size(self):
    return self._client.server_info()[self._table].current_size

  def take_all(self):
    """Takes all that the table holds out of it, in order."""
    return take_all(self._client, self._table)


@pytest.fixture
def codec(make_spec):
  return TransitionCodec(make_spec())


@pytest.fixture(
  params=["embedded", pytest.param("reverb", marks=pytest.mark.acme)]
)
def recorder(request, codec, serve):
  if request.param == "embedded":
    return EmbeddedRecorder(codec)
  return ReverbRecorder(codec, serve)


@pytest.fixture
def adder(recorder):
  return recorder.adder


def observe(t, episode=0):
  return np.array([t, 100.0 * episode], np.float32)


def act(t):
  return np.array([t / 10], np.float32)


def first(episode=0):
  return dm_env.restart(observe(0, episode))


def after(t, reward, last_discount=None, discount=1.0, episode=0):
  """The time step after action t, the last one where a discount is given."""
  return dm_env.TimeStep(
    dm_env.StepType.MID if last_discount is None else dm_env.StepType.LAST,
    np.float32(reward),
    np.float32(discount if last_discount is None else last_discount),
    observe(t + 1, episode),
  )


def add_episode(adder, rewards=REWARDS, last_discount=1.0, episode=0):
  adder.add_first(first(episode))
  for t, reward in enumerate(rewards):
    last = t == len(rewards) - 1
    adder.add(
      act(t),
      after(t, reward, last_discount if last else None, episode=episode),
    )
  adder.flush()


@pytest.mark.parametrize(
  "extras", [np.float32(0.5), (np.zeros(1),), {"log_prob": np.zeros(1)}]
)
def test_extras_have_no_place(recorder, adder, extras):
  adder.add_first(first())
  with pytest.raises(ValueError, match="extras have no place in replay"):
    adder.add(act(0), after(0, 1.0), extras)
  # Nothing of the step was taken, and what is empty is nothing.
  for t, nothing in enumerate(((), None, {})):
    adder.add(act(t), after(t, 1.0), nothing)
  adder.flush()
  assert recorder.size() == 3


def expect(codec, *rows, episode=0):
  """Packs rows (from, to, reward, discount)."""
  return [
    codec.pack(
      types.Transition(
        observe(start, episode), act(start), reward, d, observe(end, episode)
      )
    )
    for start, end, reward, d in rows
  ]


@pytest.mark.parametrize("last_discount", [1.0, 0.0])
def test_an_episode_worked_out_by_hand(recorder, adder, codec, last_discount):
  add_episode(adder, last_discount=last_discount)
  # A time limit leaves the discount at 1: there, too, goes on what would be.
  np.testing.assert_array_equal(
    recorder.take_all(),
    expect(
      codec,
      (0, 1, 1.0, 1.0),
      (0, 2, 1.0 + 5.0, 0.5),
      (0, 3, 1.0 + 5.0 + 25.0, 0.25),
      (1, 4, 10.0 + 50.0 + 250.0, 0.25),
      (2, 5, 100.0 + 500.0 + 2500.0, 0.25 * last_discount),
      (3, 5, 1000.0 + 5000.0, 0.5 * last_discount),
      (4, 5, 10000.0, last_discount),
    ),
  )


def test_the_environments_discounts_multiply(recorder, adder, codec):
  adder.add_first(first())
  adder.add(act(0), after(0, 1.0, discount=0.5))
  adder.add(act(1), after(1, 10.0, discount=0.25))
  adder.add(act(2), after(2, 100.0, last_discount=1.0))
  adder.flush()
  np.testing.assert_array_equal(
    recorder.take_all(),
    expect(
      codec,
      (0, 1, 1.0, 0.5),
      (0, 2, 1.0 + 0.25 * 10.0, 0.5 * 0.5 * 0.25),
      (0, 3, 1.0 + 2.5 + 0.03125 * 100.0, 0.03125),
      (1, 3, 10.0 + 0.125 * 100.0, 0.25 * 0.5),
      (2, 3, 100.0, 1.0),
    ),
  )


def test_an_episode_shorter_than_n(recorder, adder, codec):
  add_episode(adder, rewards=(1.0, 10.0), last_discount=0.0)
  np.testing.assert_array_equal(
    recorder.take_all(),
    expect(codec, (0, 1, 1.0, 1.0), (0, 2, 6.0, 0.0), (1, 2, 10.0, 0.0)),
  )


def test_episodes_do_not_leak_into_each_other(recorder, adder, codec):
  add_episode(adder, rewards=(1.0, 10.0, 100.0, 1000.0))
  recorder.take_all()
  add_episode(adder, rewards=(3.0, 5.0), last_discount=0.0, episode=1)
  np.testing.assert_array_equal(
    recorder.take_all(),
    expect(
      codec, (0, 1, 3.0, 1.0), (0, 2, 5.5, 0.0), (1, 2, 5.0, 0.0), episode=1
    ),
  )


def test_reset_forgets_the_episode_and_keeps_what_was_written(
  recorder, adder, codec
):
  adder.add_first(first())
  for t in range(4):
    adder.add(act(t), after(t, REWARDS[t]))
  adder.reset()
  np.testing.assert_array_equal(
    recorder.take_all(),
    expect(
      codec,
      (0, 1, 1.0, 1.0),
      (0, 2, 6.0, 0.5),
      (0, 3, 31.0, 0.25),
      (1, 4, 310.0, 0.25),
    ),
  )
  with pytest.raises(ValueError, match="add_first"):
    adder.add(act(4), after(4, 0.0))
  add_episode(adder, rewards=(3.0,), episode=1)
  np.testing.assert_array_equal(
    recorder.take_all(), expect(codec, (0, 1, 3.0, 1.0), episode=1)
  )


def test_a_new_first_step_forgets_the_episode_before(recorder, adder, codec):
  adder.add_first(first())
  adder.add(act(0), after(0, 1.0))
  adder.flush()
  recorder.take_all()
  add_episode(adder, rewards=(3.0,), episode=1)
  np.testing.assert_array_equal(
    recorder.take_all(), expect(codec, (0, 1, 3.0, 1.0), episode=1)
  )


def test_steps_out_of_order_are_refused(recorder, adder):
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(act(0), after(0, 1.0))
  with pytest.raises(ValueError, match="first time step"):
    adder.add_first(after(0, 1.0))
  add_episode(adder, rewards=(1.0,))
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(act(0), after(0, 1.0))
  adder.flush()
  assert len(recorder.take_all()) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
  "field", ["observation", "action", "reward", "discount"]
)
def test_what_is_not_finite_is_not_written(recorder, adder, field, value):
  adder.add_first(first())
  for t in range(2):
    adder.add(act(t), after(t, REWARDS[t]))
  adder.flush()
  size = recorder.size()
  assert size == 2

  action, timestep = act(2), after(2, REWARDS[2], last_discount=1.0)
  if field == "action":
    action = np.full_like(action, value)
  elif field == "observation":
    timestep = timestep._replace(observation=np.float32([0.0, value]))
  else:
    timestep = timestep._replace(**{field: np.float32(value)})
  with pytest.raises(types.NonFiniteError, match=rf"^{field} .* step 3 of"):
    adder.add(action, timestep)
  adder.flush()
  assert recorder.size() == size


def test_a_first_observation_that_is_not_finite(recorder, adder):
  timestep = dm_env.restart(np.float32([np.nan, 0.0]))
  with pytest.raises(types.NonFiniteError, match=r"observation .* step 0 of"):
    adder.add_first(timestep)
  # There is then no episode to add to.
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(act(0), after(0, 1.0))
  adder.flush()
  assert recorder.size() == 0


@pytest.mark.acme
def test_reverbs_items_of_several_transitions(serve, codec):
  from acme_qsm.replay.reverb_adder import NStepTransitionAdder
  from acme_qsm.replay.reverb_tables import make_signature
  from acme_qsm.replay.reverb_tables import TABLE

  client = serve(make_queue(TABLE, make_signature(codec, 2)))
  adder = NStepTransitionAdder(
    client, codec, n_step=1, discount=0.5, transitions_per_item=2
  )
  add_episode(adder, rewards=(1.0, 10.0, 100.0), last_discount=0.0)
  first_rows = expect(
    codec, (0, 1, 1.0, 1.0), (1, 2, 10.0, 1.0), (2, 3, 100.0, 0.0)
  )
  # The third waits for another, which is of the next episode; what is waiting
  # is no part of the episode that a reset forgets.
  np.testing.assert_array_equal(
    take_all(client, TABLE), [np.concatenate(first_rows[:2])]
  )
  adder.reset()
  add_episode(adder, rewards=(3.0, 5.0), last_discount=0.0, episode=1)
  later_rows = expect(codec, (0, 1, 3.0, 1.0), (1, 2, 5.0, 0.0), episode=1)
  np.testing.assert_array_equal(
    take_all(client, TABLE), [np.concatenate([first_rows[2], later_rows[0]])]
  )
