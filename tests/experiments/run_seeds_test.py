"""Tests of several seeds in one process: each is what it is alone."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest

from acme_qsm import QSMBuilder
from acme_qsm import QSMConfig
from acme_qsm.experiments import ExperimentError
from acme_qsm.experiments import run_experiment
from acme_qsm.experiments import run_seeds
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.replay import embedded
from acme_qsm.types import NonFiniteError
from tests.conftest import SMALL_CONFIG

EPISODE_LENGTH = 20


def _latest(path):
  return checkpointing.Checkpointer(path / "checkpoints").latest()


def _learner(path):
  return dict(np.load(_latest(path).path / "learner.npz"))


def _content(path):
  return embedded.read(_latest(path).path / "replay")


@pytest.fixture
def ending(disturbed, point_environment):
  """Makes environments whose episodes end after 3 to 7 steps, by their seed."""

  def make(seed):
    length = 3 + seed % 5

    def end(step, timestep):
      return timestep._replace(step_type=2) if step % length == 0 else timestep

    return disturbed(point_environment(seed), end)

  return make


def _files(path):
  """Names of a work directory's files, but for those that no two runs share."""
  return sorted(
    str(file.relative_to(path))
    for file in path.rglob("*")
    if "tfevents" not in file.name and file.suffix != ".npy"
  )


def _assert_alike(first, second, tolerance=1e-3):
  """The checkpoints of two work directories are equal up to rounding."""
  assert (
    _latest(first).metadata["actor_steps"]
    == (_latest(second).metadata["actor_steps"])
  )
  before, after = _learner(first), _learner(second)
  assert before.keys() == after.keys()
  for name, array in before.items():
    assert array.dtype == after[name].dtype
    np.testing.assert_allclose(
      array, after[name], rtol=tolerance, atol=tolerance, err_msg=name
    )
  np.testing.assert_array_equal(before[".key"], after[".key"])
  contents = [_content(path) for path in (first, second)]
  assert contents[0].num_inserts() == contents[1].num_inserts()
  assert contents[0].num_samples() == contents[1].num_samples()
  np.testing.assert_allclose(
    contents[0].rows(), contents[1].rows(), rtol=tolerance, atol=tolerance
  )


@pytest.mark.parametrize(
  ("num_envs", "fields"),
  [
    (1, {}),
    # The policy's update at every second step, several steps at once, and no
    # new parameters for a while.
    pytest.param(
      3,
      {
        "policy_update_period": 2,
        "num_sgd_steps_per_step": 2,
        "variable_update_period": 3,
      },
      marks=pytest.mark.slow,
    ),
  ],
)
def test_a_seed_is_what_it_is_alone(
  tmp_path, make_experiment, small_config, ending, num_envs, fields
):
  config = dataclasses.replace(small_config, min_replay_size=40, **fields)
  kwargs = {"eval_every": 40, "num_eval_episodes": 2, "num_envs": num_envs}

  def make(seed, **where):
    # Episodes of one seed are of other lengths than those of the other.
    return make_experiment(
      90, config, seed=seed, environment_factory=ending, **where
    )

  run_seeds(make(3), 2, **kwargs)
  together, alone = tmp_path / "run", tmp_path / "alone"
  contents = []
  for seed in (3, 4):
    folder = f"seed_{seed}"
    first, second = together / folder, alone / folder
    run_experiment(make(seed, directory=second), **kwargs)
    _assert_alike(first, second)
    assert set(_files(second)) - set(_files(first)) <= {"logs/native.log"}
    assert set(_files(first)) <= set(_files(second))
    configs = [(path / "config.json").read_text() for path in (first, second)]
    assert configs[0] == configs[1]
    for label in ("actor", "evaluator", "learner"):
      logs = [read_csv(p / "logs" / f"{label}.csv") for p in (first, second)]
      assert list(logs[0]) == list(logs[1])
      for name in logs[0]:
        if name not in ("steps_per_second", "learner_walltime", "wall_time"):
          np.testing.assert_allclose(
            logs[0][name], logs[1][name], rtol=1e-3, atol=1e-3, err_msg=name
          )
    contents.append(_content(first))
  # Two seeds are two runs, and each made as many learner steps as its own
  # transitions call for.
  assert contents[0].num_inserts != contents[1].num_inserts
  picture = together / "learning_curves.png"
  assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_seeds_and_single_runs_go_on_from_one_another(
  tmp_path, make_experiment
):
  alone = tmp_path / "alone"

  def single(seed, num_steps, path):
    run_experiment(
      make_experiment(num_steps, seed=seed, directory=path / f"seed_{seed}"),
      eval_every=30,
      num_envs=2,
    )

  for num_steps in (41, 60, 81):
    for seed in (0, 1):
      single(seed, num_steps, alone)
  together = tmp_path / "run"
  # One seed's first part and one seed's last are a run of its own.
  single(0, 41, together)
  for num_steps in (41, 60):
    run_seeds(make_experiment(num_steps), 2, eval_every=30, num_envs=2)
  single(1, 81, together)
  run_seeds(make_experiment(81), 2, eval_every=30, num_envs=2)
  for seed in (0, 1):
    _assert_alike(together / f"seed_{seed}", alone / f"seed_{seed}")
    evaluations = read_csv(together / f"seed_{seed}" / "logs" / "evaluator.csv")
    assert evaluations["actor_steps"][-1] == 81


@pytest.mark.slow
def test_a_seed_that_is_behind_catches_up(tmp_path, make_experiment, capsys):
  for seed, num_steps in ((0, 70), (1, 41)):
    run_experiment(
      make_experiment(
        num_steps, seed=seed, directory=tmp_path / "run" / f"seed_{seed}"
      ),
      num_eval_episodes=0,
    )
  before = _learner(tmp_path / "run" / "seed_0")
  # To where the others are, which stay.
  run_seeds(make_experiment(70), 3, eval_every=20, num_envs=2)
  output = capsys.readouterr().out
  assert "0 to 70 environment steps; those behind catch up first" in output
  after = _learner(tmp_path / "run" / "seed_0")
  for name, array in before.items():
    np.testing.assert_array_equal(array, after[name])
  run_seeds(make_experiment(90), 3, eval_every=20, num_envs=2)
  for seed in range(3):
    path = tmp_path / "run" / f"seed_{seed}"
    assert _latest(path).metadata["actor_steps"] == 90
    content = _content(path)
    assert np.isfinite(content.rows()).all()
    counts = _latest(path).metadata["counter"]["counts"]
    assert counts["learner_steps"] == content.num_inserts() - 32 + 1
    assert counts["learner_steps"] == _learner(path)[".steps"]


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
    return {}


def test_a_signal_saves_every_seed(tmp_path, make_experiment):
  observer = _Interrupting(signal.SIGTERM, 2 * 47)
  with pytest.raises(SystemExit):
    run_seeds(make_experiment(100, observers=[observer]), 2, eval_every=20)
  for seed in (0, 1):
    path = tmp_path / "run" / f"seed_{seed}"
    assert _latest(path).metadata["actor_steps"] == 47
  run_seeds(make_experiment(60), 2, eval_every=20)
  for seed in (0, 1):
    path = tmp_path / "run" / f"seed_{seed}"
    evaluations = read_csv(path / "logs" / "evaluator.csv")["actor_steps"]
    np.testing.assert_array_equal(evaluations, [20, 40, 60])


@pytest.mark.parametrize(
  ("bad_reward", "message"),
  [
    (np.nan, r"^seed 1, at environment step 43: reward is not finite"),
    # Finite itself, but its square is not.
    (1e30, r"^At environment step \d+: seed 1: .*loss is .* after learner"),
  ],
)
def test_a_nan_names_its_seed(
  tmp_path, make_experiment, point_environment, bad_reward, message
):
  made = []

  def make_environment(seed):
    # One is asked for its spec, each seed has one.
    made.append(seed)
    bad_step = 43 if len(made) == 3 else 0
    return point_environment(seed, bad_step=bad_step, bad_reward=bad_reward)

  experiment = make_experiment(500, environment_factory=make_environment)
  with pytest.raises(NonFiniteError, match=message):
    run_seeds(experiment, 2, num_eval_episodes=0)


def test_what_is_said_of_all_seeds(tmp_path, make_experiment, capsys):
  run_seeds(make_experiment(40, seed=5), 2, eval_every=40, num_eval_episodes=1)
  output = capsys.readouterr().out
  assert "A new run of 2 seeds in" in output
  assert "40 environment steps: evaluation return" in output
  assert "of 2 seeds" in output
  assert "Done: 40 environment steps" in output
  # Each says what it is.
  for seed in (5, 6):
    path = tmp_path / "run" / f"seed_{seed}"
    assert json.loads((path / "config.json").read_text())["seed"] == seed


class _ReverbBuilder(QSMBuilder):
  """A builder that makes tables of its own."""

  def make_replay_tables(self, environment_spec, policy=None):
    return super().make_replay_tables(environment_spec, policy)


class _OwnActorBuilder(QSMBuilder):
  """A builder that makes an actor of its own, of one environment."""

  def make_actor(self, *args, **kwargs):
    return super().make_actor(*args, **kwargs)


class _OwnPolicyBuilder(QSMBuilder):
  """A builder that makes a policy of its own, told what Acme's are told."""

  def make_policy(self, networks, environment_spec, evaluation=False):
    assert environment_spec.actions.shape == (1,)
    return super().make_policy(networks, environment_spec, evaluation)


def test_a_policy_of_ones_own_is_told_the_spec(make_experiment):
  run_experiment(
    dataclasses.replace(
      make_experiment(40), builder=_OwnPolicyBuilder(SMALL_CONFIG)
    )
  )


@pytest.mark.parametrize(
  ("fields", "kwargs", "message"),
  [
    ({}, {"num_seeds": 0}, "num_seeds must be at least 1, got 0"),
    ({}, {"num_envs": 0}, "num_envs must be at least 1, got 0"),
    ({"seed": 2**32 - 2}, {"num_seeds": 3}, r"seed must be in \[0, 2\^32\)"),
    (
      {"builder": _ReverbBuilder(QSMConfig())},
      {},
      "num_seeds must be 1: this agent's builder",
    ),
    (
      {"builder": _OwnActorBuilder(QSMConfig())},
      {},
      "num_seeds must be 1: .* or no actor of several",
    ),
    (
      {
        "builder": QSMBuilder(
          QSMConfig(num_denoising_steps=2, max_replay_size=10**7)
        )
      },
      {"num_seeds": 10**4},
      r"memory: 10,000 seeds x 10,000,000 transitions of 28 bytes = .* fit "
      "for each seed",
    ),
  ],
)
def test_what_cannot_be_asked_of_seeds(
  tmp_path, make_experiment, fields, kwargs, message
):
  experiment = dataclasses.replace(make_experiment(), **fields)
  with pytest.raises(ExperimentError, match=message):
    run_seeds(experiment, **{"num_seeds": 2, **kwargs})
  assert not (tmp_path / "run").exists()


def test_without_a_work_directory_seeds_write_nothing(
  tmp_path, make_experiment, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  experiment = dataclasses.replace(make_experiment(40), checkpointing=None)
  run_seeds(experiment, 2, eval_every=40)
  assert list(tmp_path.iterdir()) == []
