"""Runs of environments that give what nobody can use: one line says what."""

import dataclasses
import functools

import numpy as np
import pytest
from dm_env import specs

from acme_qsm import environments
from acme_qsm.experiments import ExperimentError
from acme_qsm.experiments import run_experiment
from acme_qsm.experiments import run_seeds
from acme_qsm.types import InvalidValueError
from acme_qsm.types import NonFiniteError
from launchers import local


@pytest.fixture
def make_odd(make_experiment, point_environment, disturbed, small_config):
  """Makes an experiment whose environments of some numbers are disturbed.

  That of number 0 is asked for its spec; nothing is learned.
  """
  config = dataclasses.replace(
    small_config, min_replay_size=999, max_replay_size=1000
  )

  def make(disturb, numbers=(1,), wrap=lambda environment: environment):
    made = []

    def make_environment(seed):
      environment = point_environment(seed)
      if len(made) in numbers:
        environment = disturbed(environment, disturb, endless=False)
      made.append(seed)
      return wrap(environment)

    return make_experiment(
      40, config, environment_factory=make_environment, minutes=60.0
    )

  return make


def at(bad_step, **changes):
  """What gives something else at a step."""
  return lambda step, timestep: (
    timestep._replace(**changes) if step == bad_step else timestep
  )


NONE = ({"reward": None}, r"reward is None at step {}.*be numbers\.$")
SHAPE = (
  {"observation": np.zeros(3)},
  r"observation has shape \(3,\) at step {} of the episode; the spec says \(2,",
)
NAN = (
  {"observation": np.full(2, np.nan)},
  "observation is not finite at .* {}",
)
ACTING = functools.partial(run_experiment, num_eval_episodes=0)


@pytest.mark.parametrize(
  ("run", "numbers", "value", "where"),
  [
    (ACTING, (1,), NONE, "^At environment step 13: "),
    (ACTING, (1,), SHAPE, "^At environment step 13: "),
    (
      functools.partial(ACTING, num_envs=2),
      (2,),
      SHAPE,
      "^At environment step 26: ",
    ),
    (
      functools.partial(run_seeds, num_seeds=2, num_eval_episodes=0),
      (2,),
      NONE,
      "^seed 1, at environment step 13: ",
    ),
  ],
)
def test_acting_stops_and_says_where(make_odd, run, numbers, value, where):
  changes, message = value
  with pytest.raises(InvalidValueError, match=where + message.format(13)):
    run(make_odd(at(13, **changes), numbers))


@pytest.mark.parametrize(
  ("run", "numbers", "value", "where"),
  [
    (run_experiment, (2,), NONE, "^Evaluation: "),
    (run_experiment, (2,), SHAPE, "^Evaluation: "),
    (run_experiment, (2,), NAN, "^Evaluation: "),
    (
      functools.partial(run_seeds, num_seeds=2),
      (4,),
      NONE,
      "^seed 1, evaluation: ",
    ),
  ],
)
def test_evaluation_stops_and_says_where(make_odd, run, numbers, value, where):
  changes, message = value
  with pytest.raises(InvalidValueError, match=where + message.format(3)):
    run(make_odd(at(3, **changes), numbers), eval_every=20)


@pytest.mark.parametrize(
  "wrap", [lambda environment: environment, environments.adapt]
)
def test_a_reward_that_is_too_large_is_told(make_odd, wrap):
  with pytest.raises(
    NonFiniteError,
    match=r"^At environment step 23: reward is not finite in float32 at step 3 "
    r"of the episode: 1e\+39\.$",
  ):
    ACTING(make_odd(at(23, reward=1e39), wrap=wrap))


def test_rewards_of_shape_one_make_the_same_returns(make_odd):
  returns = []
  for shape in ((), (1,), (1, 1)):
    rows = []

    class Logger:
      def __init__(self, kept):
        self._kept = kept

      def write(self, row):
        if "episode_return" in row:
          self._kept.append(row["episode_return"])

      def close(self):
        pass

    experiment = make_odd(
      lambda step, timestep, shape=shape: timestep._replace(
        reward=np.full(shape, float(step))
      ),
      range(1, 9),
    )
    experiment = dataclasses.replace(
      experiment,
      checkpointing=None,
      logger_factory=lambda *_, rows=rows: Logger(rows),
    )
    run_experiment(experiment, eval_every=20)
    returns.append(rows)
  # Two episodes, and an evaluation of one after each.
  first, second = sum(range(1, 21)), sum(range(21, 41))
  assert sorted(returns[0]) == [first, first, first, second]
  assert returns[0] == returns[1] == returns[2]


def test_the_launcher_says_it_in_one_line(
  monkeypatch, capsys, tmp_path, point_environment, disturbed
):
  monkeypatch.setattr(
    environments,
    "make",
    lambda task, seed, action_repeat: disturbed(
      point_environment(seed), at(5, reward=None)
    ),
  )
  flags = f"--num_steps 40 --num_eval_episodes 0 --workdir {tmp_path / 'run'}"
  flags += " --policy_hidden_sizes 8 --critic_hidden_sizes 8"
  assert local.main(flags.split()) == 1
  assert capsys.readouterr().err.splitlines() == [
    "Stopped. At environment step 5: reward is None at step 5 of the episode; "
    "it must be numbers."
  ]


def test_what_cannot_be_adapted_is_refused_before_the_run(
  make_experiment, point_environment, tmp_path
):
  class Discrete(point_environment):
    def action_spec(self):
      return specs.DiscreteArray(3)

  experiment = make_experiment(
    environment_factory=lambda seed: environments.adapt(Discrete(seed))
  )
  with pytest.raises(ExperimentError, match=r"^actions must be continuous"):
    run_experiment(experiment)
  assert not (tmp_path / "run").exists()


def test_an_odd_environment_is_learned_in(
  tmp_path, make_experiment, point_environment
):
  """Everything at once: nested, integers, buffers, float64, another shape."""

  class Odd(point_environment):
    def __init__(self, seed):
      super().__init__(seed)
      self._place = np.zeros((1, 1))

    def _observation(self):
      self._place[:] = self._position
      return {"place": self._place, "time": [self._step, self._step > 10]}

    def step(self, action):
      self.action_spec().validate(action)
      return super().step(np.ravel(action) / 7)._replace(reward=np.ones((1, 1)))

    def observation_spec(self):
      return {
        "place": specs.Array((1, 1), np.float64),
        "time": [specs.Array((), np.int64), specs.Array((), bool)],
      }

    def action_spec(self):
      return specs.BoundedArray((2, 1, 1), np.float64, -7.0, 7.1)

    def reward_spec(self):
      return specs.Array((1, 1), np.float64)

  run_experiment(
    make_experiment(
      60, environment_factory=lambda seed: environments.adapt(Odd(seed))
    ),
    eval_every=60,
  )
  log = (tmp_path / "run" / "logs" / "evaluator.csv").read_text().splitlines()
  names, last = log[0].split(","), log[-1].split(",")
  assert float(last[names.index("episode_return")]) == 20.0
