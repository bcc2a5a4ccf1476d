"""What the tests of launchers share: real runs in processes of their own."""

import sys

import pytest

from acme_qsm import methods
from acme_qsm.agents import acme as acme_agents
from tests.distributed.launched import Launched

OF_ALL = [
  *("--task", "cartpole:balance", "--checkpoint_minutes", "0.05"),
  *("--batch_size", "16", "--samples_per_insert", "16"),
  *("--min_replay_size", "200"),
  *("--num_eval_episodes", "1", "--eval_every", "2000"),
]
OF_ACMES = ["--hidden_layer_sizes", "16"]
OF_METHODS = [
  *("--policy_hidden_sizes", "16", "--critic_hidden_sizes", "16"),
  *("--num_action_candidates", "1", "--num_evaluation_candidates", "1"),
  *("--variable_update_period", "20"),
]
OF_DENOISERS = ["--num_denoising_steps", "2"]


def make_small_arguments(agent="qsm"):
  """Arguments of a run that takes no time to speak of."""
  if agent in acme_agents.CONFIGS:
    return [*OF_ALL, *OF_ACMES]
  has_steps = hasattr(methods.METHODS[agent].config, "num_denoising_steps")
  return [*OF_ALL, *OF_METHODS, *(OF_DENOISERS if has_steps else [])]


@pytest.fixture
def launch():
  """A function that starts a launcher."""
  launched = []

  def start(workdir, *arguments, launcher="distributed", within=()):
    command = [sys.executable, f"launchers/{launcher}.py"]
    agent = "qsm"
    if "--agent" in arguments:
      agent = arguments[arguments.index("--agent") + 1]
    small = make_small_arguments(agent)
    run = Launched(
      [*within, *command, "--workdir", workdir, *small, *arguments],
      workdir,
      workdir.parent,
    )
    launched.append(run)
    return run

  yield start
  for run in launched:
    run.end()


@pytest.fixture
def small_arguments():
  """Makes, for a method, arguments of a run that takes no time to speak of."""
  return make_small_arguments
