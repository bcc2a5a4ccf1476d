"""Tests of the local launcher: the command a user types."""

import json
import pathlib
import re
import signal

import numpy as np
import pytest

from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.methods import METHODS
from launchers import local

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
  "replay",
  [
    "embedded",
    pytest.param("reverb", marks=[pytest.mark.acme, pytest.mark.slow]),
  ],
)
def test_the_readme_command_trains_and_survives_sigkill(
  launch, small_arguments, tmp_path, replay, capfd
):
  workdir = tmp_path / "run"
  typed = re.search(
    r"```bash\nuv run launchers/local.py(.*)\n```",
    (ROOT / "README.md").read_text(),
  )
  assert typed is not None
  arguments = [*typed[1].split(), "--replay", replay, "--eval_every", "1000"]
  # Enough steps that it cannot have finished when it is killed, and a
  # checkpoint at every one of them.
  run = launch(
    *(workdir, *arguments, "--num_steps", "100000"),
    *("--checkpoint_minutes", "1e-9"),
    launcher="local",
  )

  def has_learned():
    latest = run.latest()
    return latest is not None and latest.metadata["actor_steps"] > 250

  run.wait_until(has_learned)
  run.process.kill()
  run.process.wait()
  metadata = run.latest().metadata
  saved = metadata["actor_steps"]
  learner_steps = metadata["counter"]["counts"]["learner_steps"]
  assert learner_steps > 0

  command = [*small_arguments(), *arguments, "--workdir", str(workdir)]
  assert local.main([*command, "--num_steps", "1500"]) == 0
  output, errors = capfd.readouterr()
  assert f"{saved:,} environment steps" in output
  assert f"{learner_steps:,} learner steps" in output
  # Episodes have 1000 steps, and a new one begins where the run went on.
  episodes = read_csv(workdir / "logs" / "actor.csv")["actor_steps"]
  np.testing.assert_array_equal(episodes, [saved + 1000])
  evaluations = read_csv(workdir / "logs" / "evaluator.csv")["actor_steps"]
  np.testing.assert_array_equal(evaluations, [1000, 1500])
  learner = read_csv(workdir / "logs" / "learner.csv")
  assert np.all(np.diff(learner["learner_steps"]) > 0)
  assert run.latest().metadata["actor_steps"] == 1500
  config = json.loads((workdir / "config.json").read_text())
  assert config["task"] == "cartpole:swingup"
  assert (workdir / "learning_curve.png").exists()
  # Reverb's messages are in their file, not in the user's terminal.
  assert "reverb" not in output + errors
  native_log = (workdir / "logs" / "native.log").read_text()
  assert ("reverb" in native_log) == (replay == "reverb")


@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_signals_end_with_a_checkpoint_and_their_exit_code(
  launch, tmp_path, number, code
):
  run = launch(tmp_path / "run", "--num_steps", "100000", launcher="local")
  run.wait_until(lambda: (run.workdir / "logs" / "learner.csv").exists())
  run.process.send_signal(number)
  assert run.wait(120) == code
  assert run.latest().metadata["actor_steps"] >= 200


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--task", "cartpole:swing_up"], "did you mean .*cartpole:swingup"),
    (["--task", "nonsense"], "Unknown task 'nonsense'"),
    (["--agent", "sdca"], r"Unknown agent 'sdca'; did you mean sdac\?$"),
    (["--agent", "nonsense"], r"Unknown agent 'nonsense'; one of .*'qsm'"),
    (["--preset", "oficial"], r"Unknown preset 'oficial'; .* official\?$"),
    (
      ["--num_reverse_samples", "5"],
      "--num_reverse_samples is a setting of sdac and idem, not of qsm",
    ),
    (
      ["--critic_head", "categorical", "--action_repeat", "2"],
      r"QSMConfig\.max_value must be at least 200 for .*, got 110\.0",
    ),
    (["--batch_size", "0"], "batch_size must be positive, got 0"),
    (["--discount", "1.5"], r"discount must be in \[0, 1\], got 1.5"),
    (["--min_replay_size", "10"], "min_replay_size must be at least batch"),
    (["--max_replay_size", "99"], "max_replay_size must be at least min"),
    (["--num_steps", "0"], "max_num_actor_steps must be positive, got 0"),
    (["--seed", "-1"], "seed must be in"),
    (["--eval_every", "0"], "eval_every must be positive, got 0"),
    (["--num_eval_episodes", "-1"], "num_eval_episodes must not be neg"),
    (["--checkpoint_minutes", "0"], "time_delta_minutes must be positive"),
    (["--num_seeds", "0"], "num_seeds must be at least 1, got 0"),
    (
      ["--num_seeds", "2", "--replay", "reverb"],
      "num_seeds must be 1 with --replay reverb",
    ),
    (["--max_checkpoints", "0"], "max_to_keep must be at least 1, got 0"),
    (["--num_envs", "0"], "num_envs must be at least 1, got 0"),
    (
      ["--env_backend", "envpool", "--num_envs", "2"],
      "envpool is not installed: install the extra `envpool`, on Python 3.12",
    ),
    (
      ["--env_backend", "envpool", "--task", "lqr:lqr_2_1"],
      "lqr:lqr_2_1 cannot be stepped by envpool",
    ),
    (["--updates_per_step", "0"], "updates_per_step must be positive, got 0"),
    (
      ["--max_replay_size", "1000000000000"],
      r"does not fit into memory: 1,000,000,000,000 transitions of 52 bytes",
    ),
  ],
)
def test_wrong_input_is_refused_before_any_work(
  tmp_path, capfd, arguments, message
):
  workdir = tmp_path / "run"
  assert local.main([*arguments, "--workdir", str(workdir)]) == 2
  error = capfd.readouterr().err
  assert re.search(f"Error: .*{message}", error), error
  assert error.count("\n") == 1
  assert not workdir.exists()


def test_anothers_work_directory_is_refused(tmp_path, capfd):
  command = ["--workdir", str(tmp_path / "run"), "--num_eval_episodes", "0"]
  assert local.main([*command, "--num_steps", "5"]) == 0
  files = sorted(tmp_path.rglob("*"))
  for arguments, message in (
    (["--task", "cartpole:balance"], "its task is 'cartpole:swingup'"),
    (["--seed", "1"], "its seed is 0, not 1"),
    (["--discount", "0.9"], "its config.discount is 0.99, not 0.9"),
  ):
    assert local.main([*command, "--num_steps", "9", *arguments]) == 2
    assert message in capfd.readouterr().err
    assert sorted(tmp_path.rglob("*")) == files


def test_help_names_agents_the_presets_of_one_and_every_field(capsys):
  with pytest.raises(SystemExit) as raised:
    local.main(["--agent", "sdac", "--help"])
  assert raised.value.code == 0
  text = " ".join(capsys.readouterr().out.split())
  assert f"Agents: {', '.join(METHODS)}, acme_sac, acme_td3." in text
  assert "Presets of sdac: default, paper, reference." in text
  for name in METHODS["sdac"].preset("default").__dataclass_fields__:
    assert f"--{name}" in text or f"--no_{name}" in text, name
