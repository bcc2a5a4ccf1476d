"""Tests of the local run: what it leaves, and how it goes on."""

import dataclasses
import functools
import json
import os
import shutil
import signal
import types

import dm_env
import numpy as np
import pytest

from acme_qsm import DiffusionBuilder
from acme_qsm import make_networks
from acme_qsm import QSMBuilder
from acme_qsm import QSMConfig
from acme_qsm.experiments import ExperimentError
from acme_qsm.experiments import run_experiment as run_on_any_replay
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.replay import embedded
from acme_qsm.specs import make_environment_spec
from acme_qsm.types import NonFiniteError

# n-step returns of 3 steps add two shorter transitions at an episode's end.
ITEMS_PER_EPISODE = 22
EPISODE_LENGTH = 20
HUGE_CONFIG = QSMConfig(num_denoising_steps=2, max_replay_size=10**12)


@pytest.fixture(
  params=["embedded", pytest.param("reverb", marks=pytest.mark.acme)]
)
def replay(request):
  """The kind of replay."""
  return request.param


@pytest.fixture
def run_experiment(replay):
  """Runs an experiment on each kind of replay."""
  return functools.partial(run_on_any_replay, replay=replay)


class _Environments:
  """Makes environments.

  Attributes:
    seeds: of those that were made.
    num_open: how many of them are not closed.
    most_open: how many at once were not.
  """

  def __init__(self, factory):
    self._factory = factory
    self.seeds = []
    self.num_open = self.most_open = 0

  def __call__(self, seed):
    self.seeds.append(seed)
    self.num_open += 1
    self.most_open = max(self.most_open, self.num_open)
    environment = self._factory(seed)
    environment.close = self._close
    return environment

  def _close(self):
    self.num_open -= 1


def _finish(replay, make_experiment_in, folder):
  """Runs an experiment at once, and again in parts.

  Returns:
    The work directories `whole` and `halves`, the environments that were made
    for the first and for the last part of the second, the checkpoint's path and
    the learner's arrays before that part.
  """
  factory = make_experiment_in(folder).environment_factory

  def run(name, num_steps, num_eval_episodes=2):
    made = _Environments(factory)
    run_on_any_replay(
      make_experiment_in(folder / name, num_steps, environment_factory=made),
      eval_every=40,
      num_eval_episodes=num_eval_episodes,
      replay=replay,
    )
    return made

  whole, halves = folder / "whole", folder / "halves"
  made_for_whole = run("whole", 100)
  run("halves", 45)
  middle = _latest(halves).metadata
  before = dict(np.load(_latest(halves).path / "learner.npz"))
  # Nothing is left to do: this only loads and saves what there is.
  run("halves", 45, num_eval_episodes=0)
  after = dict(np.load(_latest(halves).path / "learner.npz"))
  return types.SimpleNamespace(
    whole=whole,
    halves=halves,
    middle=middle,
    before=before,
    after=after,
    made_for_whole=made_for_whole,
    made_for_last_half=run("halves", 100),
  )


@pytest.fixture(scope="module")
def finished_embedded(make_experiment_in, tmp_path_factory):
  """What has been run with embedded replay."""
  folder = tmp_path_factory.mktemp("embedded")
  return _finish("embedded", make_experiment_in, folder)


@pytest.fixture(scope="module")
def finished_reverb(make_experiment_in, tmp_path_factory):
  """What has been run with Reverb."""
  folder = tmp_path_factory.mktemp("reverb")
  return _finish("reverb", make_experiment_in, folder)


@pytest.fixture
def finished(request, replay):
  """What has been run with each kind of replay, to be looked at."""
  return request.getfixturevalue(f"finished_{replay}")


@pytest.fixture
def begun(finished, tmp_path):
  """A run of 100 steps, to be gone on with in tmp_path / "run"."""
  return shutil.copytree(finished.whole, tmp_path / "run")


def _latest(path):
  return checkpointing.Checkpointer(path / "checkpoints").latest()


def _learner_steps(path):
  return _latest(path).metadata["counter"]["counts"]["learner_steps"]


def _expected_learner_steps(num_items, min_replay_size=32):
  """One learner step per item, from the one that makes replay large enough."""
  return num_items - min_replay_size + 1


def test_leaves_everything_in_the_work_directory(finished):
  path = finished.whole
  config = json.loads((path / "config.json").read_text())
  assert config["seed"] == 0
  assert config["config"]["batch_size"] == 8
  evaluations = read_csv(path / "logs" / "evaluator.csv")
  np.testing.assert_array_equal(evaluations["actor_steps"], [40, 80, 100])
  assert np.all(evaluations["episode_return_min"] >= 0)
  assert np.all(evaluations["episode_return_max"] <= EPISODE_LENGTH)
  episodes = read_csv(path / "logs" / "actor.csv")
  np.testing.assert_array_equal(episodes["actor_steps"], np.arange(20, 101, 20))
  np.testing.assert_array_equal(episodes["actor_episodes"], np.arange(1, 6))
  assert (path / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"
  assert list((path / "tensorboard").glob("*tfevents*"))
  assert _latest(path).metadata["actor_steps"] == 100


def test_makes_the_learner_steps_that_samples_per_insert_call_for(finished):
  # The last items may still have been on their way to replay.
  expected = _expected_learner_steps(5 * ITEMS_PER_EPISODE)
  assert expected - 10 <= _learner_steps(finished.whole) <= expected


def test_items_of_several_transitions_change_no_count(
  tmp_path, make_experiment, small_config, run_experiment
):
  config = dataclasses.replace(small_config, transitions_per_item=8)
  # In the middle of an item, which is lost, as is what was on its way.
  for num_steps in (50, 100):
    run_experiment(make_experiment(num_steps, config), num_eval_episodes=0)
  metadata = _latest(tmp_path / "run").metadata
  steps = metadata["counter"]["counts"]["learner_steps"]
  # Two episodes, half of one, and again.
  num_items = 2 * (2 * ITEMS_PER_EPISODE + 10)
  expected = _expected_learner_steps(num_items)
  assert metadata["actor_steps"] == 100
  assert expected - 2 * 8 - 10 <= steps <= expected + 8


@pytest.mark.acme
def test_what_restarts_lose_does_not_add_up(
  tmp_path, make_experiment, small_config
):
  from acme_qsm.replay import reverb_server

  config = dataclasses.replace(small_config, samples_per_insert_tolerance=10.0)
  for num_steps in range(60, 85, 5):
    run_on_any_replay(
      make_experiment(num_steps, config), num_eval_episodes=0, replay="reverb"
    )
  server = reverb_server.LocalReplay(
    QSMBuilder(config).make_replay_tables(
      make_environment_spec(make_experiment().environment_factory(0))
    ),
    staging=tmp_path / "staging",
    checkpoint=_latest(tmp_path / "run").path / "replay",
    run_id=(tmp_path / "run" / "run_id").read_text().strip(),
  )
  # Reverb has counted all that was ever on its way to a learner. Of one run,
  # that is a batch that waits, one that is collected, and the next samples.
  ahead = server.num_samples() - server.num_samples_due()
  server.stop()
  assert 0 <= ahead <= 4 * config.batch_size


def test_resumed_run_counts_as_an_uninterrupted_one(finished):
  whole, halves = finished.whole, finished.halves
  assert finished.middle["actor_steps"] == 45
  # The second half begins with an episode of its own: in between lies one of
  # 5 steps, which is not counted among the episodes.
  episodes = read_csv(halves / "logs" / "actor.csv")["actor_steps"]
  np.testing.assert_array_equal(episodes, [20, 40, 65, 85])
  for path in (whole, halves):
    # Of each process, from its first row on.
    learner = read_csv(path / "logs" / "learner.csv")
    assert len(learner["action_spread"]) == (1 if path == whole else 2)
    assert np.all(learner["action_spread"] > 0)
    evaluations = read_csv(path / "logs" / "evaluator.csv")["actor_steps"]
    expected = sorted([40, 80, 100, *([45] if path == halves else [])])
    np.testing.assert_array_equal(evaluations, expected)
  # With an empty replay, the second half would have called for 31 fewer.
  assert abs(_learner_steps(whole) - _learner_steps(halves)) <= 12


def test_resumed_run_goes_on_with_its_own_learner(finished):
  before, after = finished.before, finished.after
  assert before.keys() == after.keys()
  for name, array in before.items():
    np.testing.assert_array_equal(array, after[name])
  now = dict(np.load(_latest(finished.halves).path / "learner.npz"))
  assert now[".steps"] == _learner_steps(finished.halves)


class _Interrupting:
  """An observer that sends the process a signal at an environment step."""

  def __init__(self, number, step):
    self._number = number
    self._left = step

  def observe_first(self, env, timestep):
    pass

  def observe(self, env, timestep, action):
    self._left -= 1
    if self._left == 0:
      os.kill(os.getpid(), self._number)

  def get_metrics(self):
    return {"seen": 1.0}


@pytest.mark.parametrize(
  ("number", "error", "replay"),
  [
    (signal.SIGINT, KeyboardInterrupt, "embedded"),
    pytest.param(
      *(signal.SIGTERM, SystemExit, "reverb"), marks=pytest.mark.acme
    ),
  ],
)
def test_a_signal_saves_a_checkpoint_and_the_run_goes_on(
  tmp_path, make_experiment, number, error, run_experiment
):
  path = tmp_path / "run"
  handler = signal.getsignal(number)
  interrupted = make_experiment(100, observers=[_Interrupting(number, 47)])
  with pytest.raises(error) as raised:
    run_experiment(interrupted, eval_every=20, num_eval_episodes=1)
  if error is SystemExit:
    assert raised.value.code == 143
  assert signal.getsignal(number) is handler
  assert _latest(path).metadata["actor_steps"] == 47

  run_experiment(make_experiment(100), eval_every=20, num_eval_episodes=1)
  evaluations = read_csv(path / "logs" / "evaluator.csv")["actor_steps"]
  np.testing.assert_array_equal(evaluations, [20, 40, 60, 80, 100])
  assert read_csv(path / "logs" / "actor.csv")["seen"][0] == 1.0


def test_an_evaluation_that_was_interrupted_is_made_up_for(
  tmp_path, make_experiment
):
  class InterruptedEvaluation(dm_env.Environment):
    """Sends SIGTERM at the first step of the environment made third.

    The first is asked for its spec, the second is acted in.
    """

    made = 0

    def __init__(self, environment):
      self._environment = environment
      InterruptedEvaluation.made += 1
      self._interrupt = InterruptedEvaluation.made == 3

    def step(self, action):
      if self._interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        self._interrupt = False
      return self._environment.step(action)

    def __getattr__(self, name):
      return getattr(self._environment, name)

    reset = observation_spec = action_spec = None

  for name in ("reset", "observation_spec", "action_spec"):
    setattr(
      InterruptedEvaluation,
      name,
      lambda self, name=name: getattr(self._environment, name)(),
    )
  InterruptedEvaluation.__abstractmethods__ = frozenset()
  normal = make_experiment(60)
  experiment = make_experiment(
    60,
    environment_factory=lambda seed: InterruptedEvaluation(
      normal.environment_factory(seed)
    ),
  )
  with pytest.raises(SystemExit):
    run_on_any_replay(experiment, eval_every=30, num_eval_episodes=1)
  path = tmp_path / "run"
  assert _latest(path).metadata["actor_steps"] == 30
  run_on_any_replay(normal, eval_every=30, num_eval_episodes=1)
  evaluations = read_csv(path / "logs" / "evaluator.csv")["actor_steps"]
  np.testing.assert_array_equal(evaluations, [30, 60])


@pytest.mark.parametrize(
  ("bad_reward", "replay"),
  [
    (np.nan, "embedded"),
    pytest.param(np.inf, "reverb", marks=pytest.mark.acme),
  ],
)
def test_a_reward_that_is_not_finite_stops_the_run(
  make_experiment, bad_reward, begun, run_experiment
):
  def make_environment(seed):
    environment = make_experiment().environment_factory(seed)
    environment.__init__(seed, bad_step=13, bad_reward=bad_reward)
    return environment

  with pytest.raises(
    NonFiniteError, match=r"environment step 113: reward is not finite"
  ):
    run_experiment(
      make_experiment(200, environment_factory=make_environment, minutes=1e-9),
      eval_every=100,
      num_eval_episodes=0,
    )
  # The steps before it were saved, the bad one was not.
  assert _latest(begun).metadata["actor_steps"] == 112


@pytest.mark.parametrize("replay", ["embedded"])
def test_a_loss_that_is_not_finite_stops_the_run(
  make_experiment, begun, run_experiment
):
  def make_environment(seed):
    environment = make_experiment().environment_factory(seed)
    # Finite itself, but its square is not.
    environment.__init__(seed, bad_step=5, bad_reward=1e30)
    return environment

  with pytest.raises(NonFiniteError, match=r"loss is .* after learner step"):
    run_experiment(
      make_experiment(600, environment_factory=make_environment),
      eval_every=500,
      num_eval_episodes=0,
    )
  assert _latest(begun).metadata["actor_steps"] == 100


def test_returns_that_do_not_fit_are_warned_of(
  make_experiment, small_config, capsys
):
  # Its rewards, up to 1 each, have no bounds that are stated.
  config = dataclasses.replace(
    small_config, critic_head="categorical", num_atoms=11, max_value=0.1
  )
  run_on_any_replay(
    make_experiment(100, config), eval_every=100, num_eval_episodes=0
  )
  output = capsys.readouterr().out
  assert output.count("Warning: ") == 1
  (line,) = [line for line in output.splitlines() if "Warning: " in line]
  assert "min_value or raise max_value" in line


def test_evaluation_has_its_own_environment(finished):
  seeds = finished.made_for_whole.seeds
  # One is asked for its spec, one is acted in, and one for each evaluation.
  assert len(set(seeds)) == len(seeds) == 2 + 3


def test_environments_are_closed(finished):
  made = finished.made_for_last_half
  assert made.num_open == finished.made_for_whole.num_open == 0
  # One to act in, and one to evaluate in.
  assert made.most_open == finished.made_for_whole.most_open == 2
  assert len(made.seeds) == 2 + 2


# With an embedded one it is several seeds' test.
@pytest.mark.parametrize(
  "replay", [pytest.param("reverb", marks=pytest.mark.acme)]
)
def test_without_a_work_directory_nothing_is_written(
  tmp_path, make_experiment, monkeypatch, run_experiment
):
  monkeypatch.chdir(tmp_path)
  experiment = dataclasses.replace(make_experiment(60), checkpointing=None)
  run_experiment(experiment, eval_every=30, num_eval_episodes=1)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"eval_every": 0}, "eval_every must be positive, got 0"),
    ({"num_eval_episodes": -1}, "num_eval_episodes must not be negative"),
  ],
)
def test_wrong_arguments(tmp_path, make_experiment, kwargs, message):
  with pytest.raises(ExperimentError, match=message):
    run_on_any_replay(make_experiment(), **kwargs)
  assert not (tmp_path / "run").exists()


class _MinSizeBuilder(QSMBuilder):
  """A builder whose table does not limit samples per insert."""

  def make_replay_tables(self, environment_spec, policy=None):
    (table,) = super().make_replay_tables(environment_spec, policy)
    import reverb

    limiter = reverb.rate_limiters.MinSize(1)
    return [table.replace(rate_limiter=limiter)]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    pytest.param(
      {"builder": _MinSizeBuilder(QSMConfig(num_denoising_steps=2))},
      "'transitions' must hold samples per insert",
      marks=pytest.mark.acme,
    ),
    ({"evaluator_factories": [lambda: None]}, "evaluator_factories must be"),
    (
      {
        "network_factory": lambda spec: make_networks(
          spec, QSMConfig(), denoiser=lambda o, a, t: o
        )
      },
      r"denoiser must return shape \(2, 1\)",
    ),
  ],
)
def test_what_cannot_be_run(tmp_path, make_experiment, fields, message):
  def make_and_run():
    experiment = dataclasses.replace(make_experiment(), **fields)
    run_on_any_replay(experiment, eval_every=50)

  with pytest.raises(ExperimentError, match=message):
    make_and_run()
  assert not (tmp_path / "run").exists()


def test_unbounded_actions_cannot_be_chosen(tmp_path, make_experiment):
  def make_environment(seed):
    environment = make_experiment().environment_factory(seed)
    environment.action_spec = lambda: dm_env.specs.Array((1,), np.float32)
    return environment

  experiment = make_experiment(environment_factory=make_environment)
  with pytest.raises(ExperimentError, match="actions must be bounded"):
    run_on_any_replay(experiment, eval_every=50)
  assert not (tmp_path / "run").exists()


def test_no_evaluators_is_no_evaluation(tmp_path, make_experiment):
  run_on_any_replay(make_experiment(40, evaluator_factories=[]), eval_every=20)
  assert not (tmp_path / "run" / "logs" / "evaluator.csv").exists()


def test_checkpoints_that_cannot_be_read_are_an_error(
  make_experiment, run_experiment, begun, replay
):
  name = {"embedded": "embedded_replay.json", "reverb": "DONE"}[replay]
  (_latest(begun).path / "replay" / name).unlink()
  with pytest.raises(checkpointing.CheckpointError, match=name):
    run_experiment(make_experiment(120), eval_every=40, num_eval_episodes=0)


@pytest.mark.parametrize("replay", ["embedded"])
def test_a_damaged_replay_is_passed_over(make_experiment, begun):
  run = functools.partial(run_on_any_replay, num_eval_episodes=0)
  run(make_experiment(120, max_to_keep=2))
  file = next((_latest(begun).path / "replay").glob("*.npy"))
  content = bytearray(file.read_bytes())
  content[-1] ^= 1
  file.unlink()  # It may have a second name in the checkpoint before.
  file.write_bytes(content)
  assert _latest(begun).metadata["actor_steps"] == 100
  run(make_experiment(140, max_to_keep=2))
  assert _latest(begun).metadata["actor_steps"] == 140


def test_embedded_replay_loses_nothing_between_runs(finished_embedded):
  path = finished_embedded.halves
  # Two episodes and 5 steps of one, two more and 15 steps of one.
  num_transitions = 2 * (2 * ITEMS_PER_EPISODE) + 5 + 15
  content = embedded.read(_latest(path).path / "replay")
  assert len(content.rows()) == content.num_inserts() == num_transitions
  steps = _expected_learner_steps(num_transitions)
  assert _learner_steps(path) == steps
  assert content.num_samples() == 8 * steps


def _learner(path):
  return dict(np.load(_latest(path).path / "learner.npz"))


def test_a_seed_reproduces_a_run_bit_by_bit(
  tmp_path, make_experiment, finished_embedded
):
  one = _learner(finished_embedded.whole)
  # However often it saves.
  for seed, minutes in ((0, 1e-9), (1, 60.0)):
    directory = tmp_path / str(seed)
    run_on_any_replay(
      make_experiment(100, seed=seed, directory=directory, minutes=minutes),
      eval_every=40,
      num_eval_episodes=2,
    )
  same, other = _learner(tmp_path / "0"), _learner(tmp_path / "1")
  for key, array in one.items():
    np.testing.assert_array_equal(array, same[key])
  key = next(key for key in one if "policy_params" in key)
  assert not np.array_equal(one[key], other[key])


def test_a_seed_reproduces_what_learning_writes_to_replay(
  tmp_path, make_experiment, make_config
):
  found = []
  for name, minutes in (("one", 60.0), ("same", 1e-9)):
    directory = tmp_path / name
    run_on_any_replay(
      make_experiment(
        60,
        make_config("dipo"),
        directory=directory,
        minutes=minutes,
        make_builder=DiffusionBuilder,
      ),
      num_eval_episodes=0,
    )
    content = embedded.read(_latest(directory).path / "replay")
    found.append({**_learner(directory), "rows": content.rows()})
  one, same = found
  # The executed action is the third number, and the moved one the last.
  assert np.any(one["rows"][:, 2] != one["rows"][:, -1])
  for key, array in one.items():
    np.testing.assert_array_equal(array, same[key])


@pytest.mark.acme
def test_a_run_goes_on_in_reverb(tmp_path, make_experiment, make_config):
  def run(num_steps, replay):
    run_on_any_replay(
      make_experiment(
        num_steps, make_config("dipo"), make_builder=DiffusionBuilder
      ),
      num_eval_episodes=0,
      replay=replay,
    )

  run(50, "embedded")
  run(60, "reverb")
  with pytest.raises(checkpointing.CheckpointError, match="--replay reverb"):
    run(100, "embedded")
  # The same command goes on, from a checkpoint of Reverb's whose counts are not
  # those of the run.
  run(100, "auto")
  assert (_latest(tmp_path / "run").path / "replay" / "DONE").exists()
  # Five episodes of 20, and two that were cut off after 10.
  expected = _expected_learner_steps(
    2 * ITEMS_PER_EPISODE + 10 + 10 + 2 * ITEMS_PER_EPISODE, min_replay_size=16
  )
  steps = _learner_steps(tmp_path / "run")
  assert expected - 15 <= steps <= expected + 4


@pytest.mark.parametrize(
  ("fields", "kwargs", "message"),
  [
    ({}, {"num_envs": 0}, "num_envs must be at least 1, got 0"),
    ({}, {"replay": "redis"}, "replay must be one of .*'redis'"),
    (
      {"builder": _MinSizeBuilder(QSMConfig(num_denoising_steps=2))},
      {"replay": "embedded"},
      "replay must be 'reverb'",
    ),
    (
      {"builder": QSMBuilder(HUGE_CONFIG)},
      {},
      r"does not fit into memory: 1,000,000,000,000 transitions of 28 bytes",
    ),
    pytest.param(
      {"builder": QSMBuilder(HUGE_CONFIG)},
      {"replay": "reverb"},
      "max_replay_size must be at most 2,147,483,647 items for Reverb",
      marks=pytest.mark.acme,
    ),
    pytest.param(
      {
        "builder": QSMBuilder(
          dataclasses.replace(HUGE_CONFIG, max_replay_size=2 * 10**9)
        )
      },
      {"replay": "reverb"},
      r"does not fit into memory: 2,000,000,000 transitions of 1,598 bytes",
      marks=pytest.mark.acme,
    ),
  ],
)
def test_what_cannot_be_asked_of_a_run(
  tmp_path, make_experiment, fields, kwargs, message
):
  experiment = dataclasses.replace(make_experiment(), **fields)
  with pytest.raises(ExperimentError, match=message):
    run_on_any_replay(experiment, eval_every=50, **kwargs)
  assert not (tmp_path / "run").exists()


def test_environments_that_step_together(tmp_path, make_experiment):
  seeds = []

  def make_environment(seed):
    seeds.append(seed)
    return make_experiment().environment_factory(seed)

  experiment = make_experiment(103, environment_factory=make_environment)
  run_on_any_replay(experiment, eval_every=50, num_eval_episodes=0, num_envs=5)
  assert len(set(seeds)) == len(seeds) == 1 + 5  # One is asked for its spec.
  latest = _latest(tmp_path / "run")
  # Exactly as many as were asked for: 21 of the first three, 20 of the others.
  assert latest.metadata["actor_steps"] == 103
  content = embedded.read(latest.path / "replay")
  assert content.num_inserts() == 5 * ITEMS_PER_EPISODE + 3
  episodes = read_csv(tmp_path / "run" / "logs" / "actor.csv")
  np.testing.assert_array_equal(episodes["episode_length"], [20.0] * 5)
  np.testing.assert_array_equal(episodes["actor_steps"], [96, 97, 98, 99, 100])
  steps = _expected_learner_steps(content.num_inserts())
  counts = latest.metadata["counter"]["counts"]
  assert counts["learner_steps"] == steps
  # Each environment has its own observations and actions behind one another.
  assert np.isfinite(content.rows()).all()
  assert len(np.unique(content.rows(), axis=0)) == len(content.rows())
