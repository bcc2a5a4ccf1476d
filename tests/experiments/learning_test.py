"""That a run learns: its actor's returns rise, end to end."""

import jax
import numpy as np
import pytest

from acme_qsm import experiments
from acme_qsm import QSMBuilder
from acme_qsm import QSMConfig
from acme_qsm.experiments.records import loggers

CONFIG = QSMConfig(
  policy_hidden_sizes=(64, 64),
  critic_hidden_sizes=(64, 64),
  num_denoising_steps=5,
  batch_size=64,
  samples_per_insert=64.0,
  policy_learning_rate=1e-3,
  critic_learning_rate=1e-3,
  discount=0.9,
  min_replay_size=200,
  max_replay_size=10_000,
)
LAST_EPISODES = 20


class FrozenActorBuilder(QSMBuilder):
  """A builder whose actors keep the parameters that they began with."""

  def make_actor(self, random_key, policy, spec, variable_source, adder=None):
    first = {}

    class First:
      def get_variables(self, names):
        key = tuple(names)
        if key not in first:
          first[key] = jax.tree.map(
            np.array, variable_source.get_variables(names)
          )
        return first[key]

    return super().make_actor(random_key, policy, spec, First(), adder)


def mean_last_return(make_experiment, tmp_path, builder, num_steps):
  experiments.run_experiment(
    make_experiment(num_steps, config=CONFIG, make_builder=builder),
    num_eval_episodes=0,
  )
  log = loggers.read_csv(tmp_path / "run" / "logs" / "actor.csv")
  return np.mean(log["episode_return"][-LAST_EPISODES:])


@pytest.mark.slow
@pytest.mark.parametrize(
  ("builder", "num_steps", "learns"),
  # Who never learns does no better later.
  [(QSMBuilder, 2_000, True), (FrozenActorBuilder, 600, False)],
)
def test_returns_rise_where_actors_learn(
  make_experiment, tmp_path, builder, num_steps, learns
):
  # Of 20 at most. Who heads for the middle and stays there gets 18.6 in the
  # mean, with a standard deviation of 1.4 over episodes; who does whatever
  # comes 10.0, with 5.6. So the means of 20 episodes are 11 and 4 of their
  # standard deviations away from the limit.
  value = mean_last_return(make_experiment, tmp_path, builder, num_steps)
  assert (value > 15.0) == learns, value
