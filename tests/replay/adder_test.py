"""The adders against paper: into this process's replay, and into Reverb."""

import dm_env
import jax
import numpy as np
import pytest

from acme_qsm import environments
from acme_qsm import types
from acme_qsm.replay import embedded
from acme_qsm.replay.adder import TransitionAdder
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import EmbeddedReplay
from acme_qsm.replay.pacing import Pace
from acme_qsm.specs import make_environment_spec

REWARDS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
INT32 = np.iinfo(np.int32)


def make_queue(name, signature):
  """A table that gives every item once, in order."""
  import acme_qsm.acme_compat  # noqa: F401  # isort: skip

  import reverb

  return reverb.Table.queue(name, max_size=10_000, signature=signature)


def take_all(client, table):
  """Takes all that the table holds out of it, in order."""
  size = client.server_info()[table].current_size
  if not size:
    return []
  samples = client.sample(
    table, size, emit_timesteps=False, unpack_as_table_signature=True
  )
  return [sample.data for sample in samples]


class EmbeddedRecorder:
  """An adder, and what it has written into this process's replay."""

  def __init__(self, codec, **kwargs):
    self.replay = EmbeddedReplay(
      codec.size,
      1_000,
      Pace(1.0, 1, 0.0, 1.0),
      extras=codec.describe_extras(),
    )
    self._num_taken = 0
    self.adder = TransitionAdder(self.replay.insert, codec, **kwargs)

  def take_all(self):
    """What was written since it was asked last, in order."""
    rows = self.replay.rows()[self._num_taken :]
    self._num_taken += len(rows)
    return rows


class FileRecorder(EmbeddedRecorder):
  """The same, of which the file is asked."""

  def __init__(self, codec, folder, **kwargs):
    super().__init__(codec, **kwargs)
    self._folder = folder

  def take_all(self):
    self.replay.save(self._folder)
    return embedded.read(self._folder).rows()


class ReverbRecorder:
  """An adder, and what it has written into Reverb."""

  def __init__(self, codec, serve, transitions_per_item=1, **kwargs):
    from acme_qsm.replay.reverb_adder import ReverbAdder
    from acme_qsm.replay.reverb_tables import make_signature
    from acme_qsm.replay.reverb_tables import TABLE

    self._table = TABLE
    signature = make_signature(codec, transitions_per_item)
    self._client = serve(make_queue(TABLE, signature))
    self.adder = ReverbAdder(
      self._client, codec, transitions_per_item=transitions_per_item, **kwargs
    )

  def take_all(self):
    """Takes all that the table holds out of it, in order."""
    self.adder.flush()
    return take_all(self._client, self._table)


@pytest.fixture
def codec(make_spec):
  return TransitionCodec(make_spec())


@pytest.fixture(
  params=["embedded", pytest.param("reverb", marks=pytest.mark.acme)]
)
def recorder(request, codec):
  if request.param == "embedded":
    return EmbeddedRecorder(codec, n_step=3, discount=0.5)
  serve = request.getfixturevalue("serve")
  return ReverbRecorder(codec, serve, n_step=3, discount=0.5)


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


def add_episode(
  adder,
  rewards=REWARDS,
  last_discount=1.0,
  episode=0,
  extras=lambda t: (),
):
  adder.add_first(first(episode))
  for t, reward in enumerate(rewards):
    last = t == len(rewards) - 1
    adder.add(
      act(t),
      after(t, reward, last_discount if last else None, episode=episode),
      extras(t),
    )


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
def test_an_episode_worked_out_by_hand(recorder, codec, last_discount):
  add_episode(recorder.adder, last_discount=last_discount)
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


def test_the_environments_discounts_multiply(recorder, codec):
  recorder.adder.add_first(first())
  recorder.adder.add(act(0), after(0, 1.0, discount=0.5))
  recorder.adder.add(act(1), after(1, 10.0, discount=0.25))
  recorder.adder.add(act(2), after(2, 100.0, last_discount=1.0))
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


def test_an_episode_after_another_and_shorter_than_n(recorder, codec):
  add_episode(recorder.adder, rewards=(1.0, 10.0, 100.0, 1000.0))
  recorder.take_all()
  add_episode(recorder.adder, rewards=(3.0, 5.0), last_discount=0.0, episode=1)
  np.testing.assert_array_equal(
    recorder.take_all(),
    expect(
      codec, (0, 1, 3.0, 1.0), (0, 2, 5.5, 0.0), (1, 2, 5.0, 0.0), episode=1
    ),
  )


@pytest.mark.parametrize("resets", [True, False])
def test_an_episode_that_is_forgotten(recorder, codec, resets):
  adder = recorder.adder
  adder.add_first(first())
  for t in range(4):
    adder.add(act(t), after(t, REWARDS[t]))
  if resets:
    adder.reset()
    with pytest.raises(ValueError, match="add_first"):
      adder.add(act(4), after(4, 0.0))
  # What was written stays, and the next one begins anew.
  add_episode(adder, rewards=(3.0,), episode=1)
  np.testing.assert_array_equal(
    recorder.take_all(),
    [
      *expect(
        codec,
        (0, 1, 1.0, 1.0),
        (0, 2, 6.0, 0.5),
        (0, 3, 31.0, 0.25),
        (1, 4, 310.0, 0.25),
      ),
      *expect(codec, (0, 1, 3.0, 1.0), episode=1),
    ],
  )


def test_steps_out_of_order_are_refused(recorder):
  adder = recorder.adder
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(act(0), after(0, 1.0))
  with pytest.raises(ValueError, match="first time step"):
    adder.add_first(after(0, 1.0))
  with pytest.raises(types.NonFiniteError, match=r"observation .* step 0 of"):
    adder.add_first(dm_env.restart(np.float32([np.nan, 0.0])))
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(act(0), after(0, 1.0))
  add_episode(adder, rewards=(1.0,))
  with pytest.raises(ValueError, match="add_first must be called"):
    adder.add(act(0), after(0, 1.0))
  assert len(recorder.take_all()) == 1


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize(
  "field", ["observation", "action", "reward", "discount"]
)
def test_a_step_that_is_not_finite_is_not_added(recorder, codec, field, value):
  recorder.adder.add_first(first())
  recorder.adder.add(act(0), after(0, REWARDS[0]))
  action, timestep = act(1), after(1, REWARDS[1], last_discount=1.0)
  if field == "action":
    action = np.full_like(action, value)
  elif field == "observation":
    timestep = timestep._replace(observation=np.float32([0.0, value]))
  else:
    timestep = timestep._replace(**{field: np.float32(value)})
  with pytest.raises(types.NonFiniteError, match=rf"^{field} .* step 2 of"):
    recorder.adder.add(action, timestep)
  recorder.adder.add(act(1), after(1, REWARDS[1]))
  np.testing.assert_array_equal(
    recorder.take_all(), expect(codec, (0, 1, 1.0, 1.0), (0, 2, 6.0, 0.5))
  )


EXTRAS_SPEC = {
  "log_prob": types.ArraySpec(()),
  "mean": types.ArraySpec((2,)),
  "image": types.ArraySpec((4, 3, 2)),
  "count": types.ArraySpec((), np.int32),
  "indices": types.ArraySpec((2, 4), np.int32),
  "is_random": types.ArraySpec((), bool),
}


def make_extras(t):
  """A step's extras: numbers that other types would not hold."""
  random = np.random.default_rng(t)
  return {
    # The normal float32 that is nearest to 0, and one that is furthest from it.
    "log_prob": np.float32([2.0**-126, -3.4028235e38][t % 2]),
    "mean": random.normal(size=2).astype(np.float32),
    "image": random.normal(size=(4, 3, 2)).astype(np.float32),
    "count": np.int32([INT32.min, -1, 2**24 + 1, 1, INT32.max][t]),
    # Of any bits: those of float32's NaN among them.
    "indices": np.int32(
      [[0x7FC00001, -1, INT32.min, t], random.integers(INT32.min, INT32.max, 4)]
    ),
    "is_random": t % 2 == 0,
  }


@pytest.mark.parametrize(
  "kind", ["embedded", "file", pytest.param("reverb", marks=pytest.mark.acme)]
)
def test_extras_come_back_as_they_were(request, make_spec, tmp_path, kind):
  codec = TransitionCodec(make_spec(), EXTRAS_SPEC)
  arguments = {"n_step": 3, "discount": 0.5}
  if kind == "embedded":
    recorder = EmbeddedRecorder(codec, **arguments)
  elif kind == "file":
    recorder = FileRecorder(codec, tmp_path / "replay", **arguments)
  else:
    serve = request.getfixturevalue("serve")
    recorder = ReverbRecorder(codec, serve, **arguments)
  add_episode(recorder.adder, extras=make_extras)
  rows = np.stack(recorder.take_all())
  found = jax.jit(codec.unpack)(rows).extras
  # Those of the steps that the transitions begin with.
  starts = [make_extras(t) for t in (0, 0, 0, 1, 2, 3, 4)]
  assert found.keys() == EXTRAS_SPEC.keys()
  for name, spec in EXTRAS_SPEC.items():
    assert found[name].dtype == spec.dtype
    np.testing.assert_array_equal(
      found[name], np.stack([extras[name] for extras in starts]), err_msg=name
    )
  # What the learner writes back is what was there.
  packed = np.asarray(jax.jit(codec.pack_extras)(found))
  np.testing.assert_array_equal(packed, rows[:, -packed.shape[1] :])


def test_without_extras_rows_are_those_that_extras_are_put_behind(make_spec):
  plain, codec = (
    TransitionCodec(make_spec()),
    TransitionCodec(make_spec(), EXTRAS_SPEC),
  )
  recorders = [
    EmbeddedRecorder(each, n_step=3, discount=0.5) for each in (plain, codec)
  ]
  add_episode(recorders[0].adder)
  add_episode(recorders[1].adder, extras=make_extras)
  rows, longer = (recorder.take_all() for recorder in recorders)
  assert rows.shape == (7, 2 + 1 + 1 + 1 + 2)
  assert longer.shape[1] == 7 + (1 + 2 + 24 + 2 * 1 + 2 * 8 + 1)
  np.testing.assert_array_equal(rows, longer[:, :7])
  np.testing.assert_array_equal(
    rows[3], [*observe(1), *act(1), 10.0 + 50.0 + 250.0, 0.25, *observe(4)]
  )


@pytest.mark.parametrize(
  ("extras", "message"),
  [
    ((), r"\['count', 'mean'\] are missing at step 2 of the episode; the spec"),
    (
      {"mean": np.zeros(2)},
      r"^Of the policy's extras, \['count'\] are",
    ),
    (
      {"mean": np.zeros(2), "number": 3},
      r"\['count'\] are missing and \['number'\] are not in its spec at step 2",
    ),
    ((np.zeros(2), 3), "^Extras are of tuple at step 2 .* arrays by name"),
    (np.zeros(2), "^Extras are of ndarray at step 2"),
    ({"mean": np.zeros(3), "count": 3}, r"extra 'mean' has shape \(3,\) at"),
    ({"mean": [0, np.inf], "count": 3}, "extra 'mean' is not finite at step 2"),
    ({"mean": None, "count": 3}, "extra 'mean' is None at step 2"),
    ({"mean": np.zeros(2), "count": 0.5}, "'count' .* float64 .* int32, its"),
    (
      {"mean": np.zeros(2), "count": 2**31},
      "'count' .* int64 at .* int32",
    ),
    (
      {"mean": np.zeros(2), "count": [3]},
      r"'count' has shape \(1,\) at",
    ),
  ],
)
def test_extras_that_are_not_those_of_the_spec(make_spec, extras, message):
  spec = {name: EXTRAS_SPEC[name] for name in ("mean", "count")}
  recorder = EmbeddedRecorder(
    TransitionCodec(make_spec(), spec), n_step=3, discount=0.5
  )
  right = {"mean": [0.5, 1.0], "count": np.uint8(3)}
  recorder.adder.add_first(first())
  recorder.adder.add(act(0), after(0, 1.0), right)
  with pytest.raises(types.InvalidValueError, match=message):
    recorder.adder.add(act(1), after(1, 1.0), extras)
  recorder.adder.add(act(1), after(1, 1.0), right)
  assert len(recorder.take_all()) == 2


def test_extras_without_a_spec(recorder):
  recorder.adder.add_first(first())
  with pytest.raises(
    types.InvalidValueError, match=r"\['mean'\] are not in its spec at step 1"
  ):
    recorder.adder.add(act(0), after(0, 1.0), {"mean": np.zeros(2)})
  # What is empty is nothing.
  for t, nothing in enumerate(((), None, {})):
    recorder.adder.add(act(t), after(t, 1.0), nothing)
  assert len(recorder.take_all()) == 3


@pytest.mark.acme
def test_reverbs_items_of_several_transitions(serve, codec):
  recorder = ReverbRecorder(
    codec, serve, transitions_per_item=2, n_step=1, discount=0.5
  )
  add_episode(recorder.adder, rewards=(1.0, 10.0, 100.0), last_discount=0.0)
  first_rows = expect(
    codec, (0, 1, 1.0, 1.0), (1, 2, 10.0, 1.0), (2, 3, 100.0, 0.0)
  )
  # The third waits for another, which is of the next episode; what is waiting
  # is no part of the episode that a reset forgets.
  np.testing.assert_array_equal(
    recorder.take_all(), [np.concatenate(first_rows[:2])]
  )
  recorder.adder.reset()
  add_episode(recorder.adder, rewards=(3.0, 5.0), last_discount=0.0, episode=1)
  later_rows = expect(codec, (0, 1, 3.0, 1.0), (1, 2, 5.0, 0.0), episode=1)
  np.testing.assert_array_equal(
    recorder.take_all(), [np.concatenate([first_rows[2], later_rows[0]])]
  )


@pytest.fixture(scope="module")
def real_episode():
  """25 steps of a real task: [(action, time step)], the first without action.

  In the middle one step discounts, so that the product of discounts shows.
  """
  environment = environments.make("cartpole:swingup", seed=3)
  rng = np.random.default_rng(0)
  steps = [(None, environment.reset())]
  for _ in range(25):
    action = rng.uniform(-1, 1, environment.action_spec().shape)
    action = action.astype(np.float32)
    steps.append((action, environment.step(action)))
  action, timestep = steps[10]
  steps[10] = (action, timestep._replace(discount=np.float32(0.75)))
  return make_environment_spec(environment), steps


@pytest.mark.acme
@pytest.mark.parametrize(
  ("n_step", "last_discount"), [(1, 1.0), (3, 1.0), (3, 0.0), (40, 0.0)]
)
def test_a_real_episode_gives_the_transitions_of_acmes_adder(
  serve, real_episode, n_step, last_discount
):
  import acme_qsm.acme_compat  # noqa: F401  # isort: skip

  from acme.adders import reverb as acme_adders

  spec, steps = real_episode
  action, timestep = steps[-1]
  last = timestep._replace(
    step_type=dm_env.StepType.LAST, discount=np.float32(last_discount)
  )
  steps = [*steps[:-1], (action, last)]
  codec = TransitionCodec(spec)
  signature = acme_adders.NStepTransitionAdder.signature(spec)
  client = serve(make_queue("acme", signature))
  acme_adder = acme_adders.NStepTransitionAdder(
    client, n_step, 0.9, priority_fns={"acme": None}
  )
  arguments = {"n_step": n_step, "discount": 0.9}
  recorders = [
    EmbeddedRecorder(codec, **arguments),
    ReverbRecorder(codec, serve, **arguments),
  ]
  for each in (acme_adder, *(recorder.adder for recorder in recorders)):
    each.add_first(steps[0][1])
    for action, timestep in steps[1:]:
      each.add(action, timestep)
  acme_adder.reset()

  theirs = [
    codec.pack(types.Transition(*data[:5])) for data in take_all(client, "acme")
  ]
  rows, ours = (recorder.take_all() for recorder in recorders)
  np.testing.assert_array_equal(rows, ours)
  num_steps = len(steps) - 1
  assert len(theirs) == num_steps + min(n_step, num_steps) - 1
  theirs, ours = sort_rows(theirs, spec), sort_rows(ours, spec)
  assert ours.shape == theirs.shape
  np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=0.0)


def sort_rows(rows, spec):
  """Sorts by what is no result of arithmetic: the observations."""
  (size,) = spec.observations.shape
  rows = np.stack(rows)
  return rows[np.lexsort((*rows[:, :size].T, *rows[:, -size:].T))]
