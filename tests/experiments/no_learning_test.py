"""Runs that end before learning begins: they say so, by the field's name."""

import pytest

from acme_qsm.experiments import run_experiment
from acme_qsm.experiments import run_seeds

WARNING = (
  "Warning: nothing will be learned. Learning begins once replay holds "
  "min_replay_size=32 transitions, and the run ends at 20 environment steps"
)
RESULT = "Nothing was learned: replay did not come to hold min_replay_size=32"


def run_one(experiment):
  run_experiment(experiment, num_eval_episodes=0)


def run_several(experiment):
  run_seeds(experiment, 2, num_envs=2, num_eval_episodes=0)


@pytest.mark.parametrize("run", [run_one, run_several])
def test_it_is_said_at_the_start_and_at_the_end(make_experiment, capsys, run):
  run(make_experiment(20))
  output = capsys.readouterr().out
  assert output.count(WARNING) == output.count(RESULT) == 1
  assert output.index(WARNING) < output.index("Done:") < output.index(RESULT)
  # The same command with more steps goes on, and learns.
  run(make_experiment(40))
  output = capsys.readouterr().out
  assert "Resumed" in output
  assert "learned" not in output
