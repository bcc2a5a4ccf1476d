"""What the launchers' command lines have in common."""

from acme_qsm.experiments import command_line
from acme_qsm.methods import METHODS


def test_flags_override_the_preset():
  arguments = command_line.parse(
    command_line.Arguments,
    [
      *("--preset", "official", "--q_score_scale", "2"),
      *("--policy_hidden_sizes", "32", "16"),
    ],
  )
  assert arguments.config.q_score_scale == 2.0
  assert arguments.config.policy_hidden_sizes == (32, 16)
  assert arguments.config.score_target == "action_gradient"
  assert (
    arguments.config.num_denoising_steps
    == METHODS["qsm"].preset("official").num_denoising_steps
  )


def test_the_work_directory_is_the_tasks_and_the_seeds():
  arguments = command_line.parse(
    command_line.Arguments, ["--task", "walker:walk", "--seed", "3"]
  )
  assert arguments.directory == "runs/walker_walk/seed_3"
