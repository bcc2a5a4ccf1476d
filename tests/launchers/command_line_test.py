"""What the launchers' command lines have in common."""

import pytest

from acme_qsm.methods import METHODS
from launchers import command_line


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


@pytest.mark.parametrize(
  ("agent", "arguments", "message"),
  [
    (
      "qsm",
      ["--num_policy_samples", "5"],
      "num_policy_samples .* dpmd and qvpo",
    ),
    (
      "qsm",
      ["--num-policy-samples", "5"],
      "num-policy-samples .* dpmd and qvpo",
    ),
    (
      "qsm",
      ["--num_policy_samples=5"],
      "num_policy_samples is .* dpmd and qvpo",
    ),
    (
      "qsm",
      ["--num-policy-samples=5"],
      "num-policy-samples is .* dpmd and qvpo",
    ),
    ("qsm", ["--temperature_scales_noise"], "noise .* sdac, idem and dpmd"),
    ("sdac", ["--no_normalize_action_gradient"], "action_gradient .* qsm"),
    ("gaussian", ["--num_denoising_steps", "5"], "qsm, .* and dipo"),
    ("sdac", ["--q_score_scale", "1"], "q_score_scale .* qsm"),
  ],
)
def test_a_setting_of_another_method_is_told_whose_it_is(
  agent, arguments, message
):
  with pytest.raises(ValueError, match=rf"^--.*{message}, not of {agent}\.$"):
    command_line.parse(
      command_line.Arguments, ["--agent", agent, *arguments, "--seed", "1"]
    )


def test_a_flag_that_nobody_has_is_unrecognized(capsys):
  with pytest.raises(SystemExit) as raised:
    command_line.parse(command_line.Arguments, ["--nonsense", "5"])
  assert raised.value.code == 2
  assert "Unrecognized options: --nonsense, 5" in capsys.readouterr().err
