"""The learner against the pure training step, of one seed and of several."""

import dataclasses
import re
import threading

import haiku as hk
import jax
import numpy as np
import pytest

import acme_qsm
from acme_qsm import types
from acme_qsm.agents import learner as learning
from acme_qsm.replay.codec import TransitionCodec
from acme_qsm.replay.embedded import Sample

BATCH_SIZE = 8


class Rows:
  """A logger that keeps what is written."""

  def __init__(self):
    self.rows = []

  def write(self, data):
    self.rows.append({name: float(value) for name, value in data.items()})


def make_data(codec, seed, size=BATCH_SIZE, reward=None):
  """A sample's data, packed random transitions, one of them of that reward."""
  rng = np.random.default_rng(seed)
  data = rng.uniform(-1, 1, (size, codec.size)).astype(np.float32)
  if reward is not None:
    data[size // 2, 3] = reward
  return data


def samples(datas):
  return (Sample(data, np.arange(len(data))) for data in datas)


def endless(codec, seed, bad_at=None):
  rng = np.random.default_rng(seed)
  number = 0
  while True:
    yield make_data(
      codec, rng.integers(2**31), reward=np.nan if number == bad_at else None
    )
    number += 1


@pytest.fixture(scope="module")
def codec(make_spec):
  return TransitionCodec(make_spec())


@pytest.fixture(scope="module")
def learner_core(make_spec, make_config):
  # Half of the steps have no update of the policy.
  config = make_config(batch_size=BATCH_SIZE, policy_update_period=2)
  networks = acme_qsm.make_networks(make_spec(), config)
  return acme_qsm.make_learner_core(networks, config)


class Fed:
  """A learner that many tests use, since it is compiled once.

  Attributes:
    learner: the learner.
    rows: its logger.
    start: its state at first.
  """

  def __init__(self, core, codec, **kwargs):
    self._datas = []
    self.rows = Rows()
    seed = learning.LearnerSeed(jax.random.PRNGKey(0), self, logger=self.rows)
    self.learner = learning.DiffusionLearner(core, [seed], codec, **kwargs)
    self.start = self.learner.save()

  def __next__(self):
    if not self._datas:
      raise StopIteration
    data = self._datas.pop(0)
    return Sample(data, np.arange(len(data)))

  def begin(self, datas):
    """The learner at its start, with other data."""
    self._datas = list(datas)
    self.rows.rows = []
    self.learner.restore(self.start)
    return self.learner

  @property
  def num_left(self):
    return len(self._datas)


@pytest.fixture(scope="module")
def fed(learner_core, codec):
  return Fed(learner_core, codec, diagnostics_period=3)


@pytest.fixture(scope="module")
def fed_by_three(learner_core, codec):
  return Fed(
    learner_core, codec, diagnostics_period=3, num_sgd_steps_per_step=3
  )


def copy(tree):
  return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def assert_bit_equal(first, second):
  assert jax.tree.structure(first) == jax.tree.structure(second)
  jax.tree.map(np.testing.assert_array_equal, first, second)


def differ(first, second):
  """Whether any leaf differs."""
  leaves = map(jax.tree.leaves, (first, second))
  return any(
    np.any(np.asarray(x) != np.asarray(y)) for x, y in zip(*leaves, strict=True)
  )


def test_one_seed_makes_the_core_s_steps_bit_by_bit(learner_core, codec, fed):
  datas = [make_data(codec, seed) for seed in range(3)]
  learner = fed.begin(datas)
  state = jax.jit(learner_core.init)(jax.random.PRNGKey(0))
  assert_bit_equal(learner.save(), copy(state))
  step = jax.jit(lambda state, x: learner_core.step(state, codec.unpack(x)))
  for number, data in enumerate(datas):
    learner.step()
    # One element for each step.
    assert fed.num_left == 2 - number
    state, metrics = step(state, data)
    saved = learner.save()
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(saved))
    assert_bit_equal(saved, copy(state))
    for name, value in metrics.items():
      assert fed.rows.rows[-1][name] == value


def test_three_sgd_steps_at_once_are_three_steps(
  learner_core, codec, fed_by_three
):
  datas = [make_data(codec, seed, 3 * BATCH_SIZE) for seed in range(2)]
  learner = fed_by_three.begin(datas)
  state = jax.jit(learner_core.init)(jax.random.PRNGKey(0))
  step = jax.jit(lambda state, x: learner_core.step(state, codec.unpack(x)))
  for call, data in enumerate(datas):
    learner.step()
    metrics = []
    for batch in np.split(data, 3):
      state, metric = step(state, batch)
      metrics.append(jax.device_get(metric))
    saved = learner.save()
    assert int(saved.steps) == 3 * (call + 1)
    np.testing.assert_array_equal(saved.key, state.key)
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
      saved,
      copy(state),
    )
    row = fed_by_three.rows.rows[-1]
    for name in metrics[0]:
      mean = np.mean([metric[name] for metric in metrics])
      np.testing.assert_allclose(row[name], mean, rtol=1e-4, err_msg=name)


def test_it_runs_and_counts_by_itself(fed_by_three, codec):
  learner = fed_by_three.begin(
    make_data(codec, seed, 3 * BATCH_SIZE) for seed in range(3)
  )
  learner.run(2)
  first, second = fed_by_three.rows.rows
  assert second["learner_steps"] - first["learner_steps"] == 3
  assert 0.0 < second["learner_walltime"] - first["learner_walltime"] < 600.0
  # Until there is nothing more to learn from.
  with pytest.raises((StopIteration, RuntimeError, IndexError)):
    learner.run()
  assert int(learner.save().steps) == 9


def test_a_restored_learner_goes_on_bit_equally(fed, codec):
  datas = [make_data(codec, seed) for seed in range(5)]
  learner = fed.begin(datas)
  learner.run(2)
  saved = learner.save()
  learner.run(3)
  expected = learner.save()
  assert differ(saved, expected)
  learner = fed.begin(datas[2:])
  learner.step()  # In the middle of training, and of others.
  learner = fed.begin(datas[2:])
  learner.restore(saved)
  assert_bit_equal(learner.save(), saved)
  learner.run(3)
  assert_bit_equal(learner.save(), expected)


def test_later_steps_change_nothing_that_was_given_out(fed, codec):
  learner = fed.begin(make_data(codec, seed) for seed in range(3))
  learner.step()
  saved, variables = learner.save(), learner.get_variables(["policy", "critic"])
  saved_copy, variables_copy = copy(saved), copy(variables)
  learner.run(2)
  assert_bit_equal(saved, saved_copy)
  assert_bit_equal(copy(variables), variables_copy)
  assert differ(learner.get_variables(["policy", "critic"]), variables)


def test_variables_are_asked_for_by_name(learner_core, fed, codec):
  learner = fed.begin([make_data(codec, 0)])
  learner.step()
  state = learner.save()
  critic, policy = learner.get_variables(["critic", "policy"])
  assert isinstance(policy, acme_qsm.PolicyParams)
  assert_bit_equal(copy(policy), learner_core.policy_params(state))
  assert_bit_equal(copy(critic), state.critic_params)
  assert learner.get_variables([]) == []
  with pytest.raises(ValueError, match=r"\['actor'\].*'critic', .*'policy'"):
    learner.get_variables(["policy", "actor"])


def test_variables_can_be_fetched_while_steps_are_made(fed, codec):
  num_steps = 50
  learner = fed.begin([make_data(codec, 0)] * (num_steps + 1))
  learner.step()
  learner.get_variables(["policy"])
  fetched, errors = [], []
  done = threading.Event()

  def fetch():
    try:
      while not done.is_set():
        (policy,) = learner.get_variables(["policy"])
        # Bounded memory: keep some, which must stay valid.
        if len(fetched) < 200:
          fetched.append(policy)
        learner.save()
    except Exception as error:
      errors.append(error)

  thread = threading.Thread(target=fetch, daemon=True)
  thread.start()
  learner.run(num_steps)
  done.set()
  thread.join(timeout=60)
  assert not thread.is_alive()
  assert not errors
  assert fetched
  steps = [int(policy.steps) for policy in fetched]
  assert steps == sorted(steps)
  assert 1 <= steps[0] <= steps[-1] <= num_steps + 1
  for policy in fetched:
    for leaf in jax.tree.leaves(policy):
      assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize(
  ("name", "reward"), [("fed", np.nan), ("fed_by_three", np.inf)]
)
def test_a_reward_that_is_not_finite_stops_the_learner(
  request, codec, name, reward
):
  num_sgd_steps = {"fed": 1, "fed_by_three": 3}[name]
  size = num_sgd_steps * BATCH_SIZE
  learner = request.getfixturevalue(name).begin(
    make_data(codec, seed, size, reward if seed == 1 else None)
    for seed in range(5)
  )
  learner.step()
  good = learner.save()
  learner.step()
  steps = 2 * num_sgd_steps
  metric = r"\w+ is (nan|-?inf)"
  message = rf"^{metric}(, {metric})* after learner step {steps}\.$"
  with pytest.raises(types.NonFiniteError, match=message):
    learner.save()
  # For good, not once.
  for _ in range(2):
    with pytest.raises(types.NonFiniteError, match=message):
      learner.step()
  learner.restore(good)
  assert_bit_equal(learner.save(), good)
  learner.step()
  assert int(learner.save().steps) == steps


@pytest.mark.parametrize(
  ("fields", "steps", "names"),
  [
    # exp(Q / temperature) of its one sample is more than a float can be.
    (
      {
        "weights": "exponential",
        "num_reverse_samples": 1,
        "temperature_update": "constant",
        "boltzmann_temperature": 0.01,
      },
      1,
      ["denoiser_loss", "largest_weight"],
    ),
    # Weights are too uneven, so that one update makes the temperature that.
    (
      {
        "boltzmann_temperature": 0.001,
        "temperature_learning_rate": 1e4,
        "policy_update_period": 1,
        "target_kl": 1.0,
      },
      2,
      ["boltzmann_temperature"],
    ),
  ],
)
def test_all_that_is_not_finite_is_named(
  make_spec, codec, fields, steps, names
):
  config = acme_qsm.SDACConfig(
    policy_hidden_sizes=(16,),
    num_denoising_steps=2,
    min_replay_size=BATCH_SIZE,
    batch_size=BATCH_SIZE,
    **fields,
  )
  networks = acme_qsm.make_networks(
    make_spec(),
    config,
    critic=lambda observation, action: hk.Linear(
      1, b_init=hk.initializers.Constant(10.0)
    )(action)[..., 0],
  )
  core = acme_qsm.make_learner_core(networks, config)
  learner = Fed(core, codec).begin([make_data(codec, 0)] * steps)
  learner.run(steps)
  with pytest.raises(
    types.NonFiniteError, match=rf" after learner step {steps}\.$"
  ) as raised:
    learner.save()
  named = re.findall(r"(\w+) is (?:nan|-?inf)", str(raised.value))
  assert set(names) <= set(named), named


@pytest.mark.parametrize("name", ["fed", "fed_by_three"])
def test_diagnostics_are_made_now_and_then_and_in_every_row(
  request, learner_core, codec, name
):
  size = {"fed": 1, "fed_by_three": 3}[name] * BATCH_SIZE
  datas = [make_data(codec, seed, size) for seed in range(5)]
  fed = request.getfixturevalue(name)
  learner = fed.begin(datas)
  diagnose = jax.jit(learner_core.diagnostics)
  expected = []
  for call, data in enumerate(datas):
    if call % 3 == 0:
      # Of the first batch, by the parameters before the step.
      batch = codec.unpack(data[:BATCH_SIZE])
      latest = float(diagnose(learner.save(), batch)["action_spread"])
    expected.append(latest)
    learner.step()
  found = [row["action_spread"] for row in fed.rows.rows]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert len(set(found)) == 2


def test_diagnostics_are_those_of_the_state_that_was_restored(fed, codec):
  learner = fed.begin([make_data(codec, 0)] * 4)
  learner.step()
  other = learner.save()
  learner.restore(other)
  learner.step()
  learner.restore(fed.start)
  learner.step()
  first, second, again = [row["action_spread"] for row in fed.rows.rows]
  assert first == again != second


@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_either_kind_of_key_can_be_saved(learner_core, codec, make_key):
  for num_seeds in (1, 2):
    learner = learning.DiffusionLearner(
      learner_core,
      [
        learning.LearnerSeed(make_key(seed), samples([]))
        for seed in range(num_seeds)
      ],
      codec,
    )
    for seed, each in enumerate(learner.seeds):
      saved = each.save()
      state = jax.jit(learner_core.init)(make_key(seed))
      assert_bit_equal(saved, learning.to_numpy(state))
      each.restore(saved)
      assert_bit_equal(each.save(), saved)


def make_seeds(codec, bad_at=None):
  """Three seeds, the second of which has a NaN in a sample."""
  return [
    learning.LearnerSeed(
      random_key=jax.random.PRNGKey(seed),
      dataset=samples(endless(codec, seed, bad_at if seed == 1 else None)),
      logger=Rows(),
      name=f"seed {seed}",
    )
    for seed in range(3)
  ]


@pytest.mark.parametrize("by_turns", [True, False])
def test_each_seed_makes_its_own_steps(learner_core, codec, fed, by_turns):
  seeds = make_seeds(codec)
  together = learning.DiffusionLearner(
    learner_core, seeds, codec, by_turns=by_turns, diagnostics_period=3
  )
  takes_part = [
    *((True, True, True), (True, True, True), (True, False, True)),
    *((False, False, True), (True, True, True)),
  ]
  for each in takes_part:
    together.step(each)
  for number, seed in enumerate(seeds):
    data = endless(codec, number)
    alone = fed.begin([next(data) for _ in range(5)])
    alone.restore(
      learning.to_numpy(learner_core.init(jax.random.PRNGKey(number)))
    )
    num_steps = sum(each[number] for each in takes_part)
    alone.run(num_steps)
    saved = together.seeds[number].save()
    assert int(saved.steps) == num_steps
    jax.tree.map(
      lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
      saved,
      alone.save(),
    )
    assert len(seed.logger.rows) == num_steps
    for row, wanted in zip(seed.logger.rows, fed.rows.rows, strict=True):
      assert list(row) == list(wanted)
      for name in set(row) - {"learner_walltime", "learner_steps"}:
        np.testing.assert_allclose(
          row[name], wanted[name], rtol=1e-2, atol=1e-4, err_msg=name
        )


class Replay:
  """Keeps what is written."""

  def __init__(self):
    self.written = []

  def refresh(self, sample):
    return sample

  def write_extras(self, indices, extras):
    self.written.append((indices, extras))


@pytest.mark.parametrize("num_sgd_steps", [1, 2])
def test_new_extras_are_written_once_a_step_is_done(
  make_spec, make_config, num_sgd_steps
):
  # Each seed's, in turn with its steps, as by a learner of its own; from each
  # sampled action to the moved one.
  config = make_config(
    "dipo",
    batch_size=BATCH_SIZE // num_sgd_steps,
    num_action_moves=1,
    action_learning_rate=0.25,
  )
  networks = acme_qsm.make_networks(make_spec(), config)
  core = acme_qsm.make_learner_core(networks, config)
  extras_spec = acme_qsm.make_policy(networks, config).extras_spec
  codec = TransitionCodec(make_spec(), extras_spec)
  replays = [Replay(), Replay()]
  written = [replay.written for replay in replays]

  def make(number, num_seeds):
    seed = learning.LearnerSeed(
      jax.random.PRNGKey(0), samples(()), replay=replays[number]
    )
    return learning.DiffusionLearner(
      core,
      [
        dataclasses.replace(seed, dataset=samples(endless(codec, 0)))
        for _ in range(num_seeds)
      ],
      codec,
      num_sgd_steps_per_step=num_sgd_steps,
    )

  together, alone = make(0, 2), make(1, 1)
  together.step((True, True))
  together.step((False, True))
  alone.step()
  assert [len(each) for each in written] == [2, 0]
  together.seeds[1].save()
  alone.step()
  alone.save()
  alone.save()
  # The first step's of both seeds, the second's of one.
  assert [len(each) for each in written] == [3, 2]
  wanted = [written[1][0], written[1][0], written[1][1]]
  for found, expected in zip(written[0], wanted, strict=True):
    np.testing.assert_array_equal(found[0], np.arange(BATCH_SIZE))
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)
  # Adam's first step is as long as its rate, within the box.
  before = next(endless(codec, 0))[:, -1:]
  np.testing.assert_allclose(
    np.abs(written[1][0][1] - before)[np.abs(before) < 0.7], 0.25, rtol=1e-3
  )


@pytest.fixture(scope="module")
def three(learner_core, codec):
  """A learner of three seeds, their states at first and after a step."""
  learner = learning.DiffusionLearner(
    learner_core, make_seeds(codec, bad_at=2), codec
  )
  start = [seed.save() for seed in learner.seeds]
  learner.step()
  return learner, start, [seed.save() for seed in learner.seeds]


def test_a_seed_s_state_is_all_that_is_fetched_or_sent(three, monkeypatch):
  learner, start, states = three
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(states[0]))
  moved = []

  def watch(function):
    def watched(state, *others):
      moved.append(sum(x.nbytes for x in jax.tree.leaves(state)))
      return function(state, *others)

    return watched

  for name in ("to_numpy", "from_numpy"):
    monkeypatch.setattr(learning, name, watch(getattr(learning, name)))
  # The others stay as they are.
  learner.seeds[1].restore(start[2])
  for seed, state in zip(
    learner.seeds, (states[0], start[2], states[2]), strict=True
  ):
    assert_bit_equal(seed.save(), state)
  assert moved == [size] * 4
  learner.seeds[1].restore(states[1])


def test_a_nan_names_its_seed(three):
  learner, _, states = three
  for seed, state in zip(learner.seeds, states, strict=True):
    seed.restore(state)
  learner.step()
  learner.step((False, True, True))
  with pytest.raises(
    types.NonFiniteError, match=r"^seed 1: .* is nan after learner step 3\.$"
  ):
    learner.seeds[0].save()
