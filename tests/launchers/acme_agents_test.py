"""Acme's own agents by the launchers' command lines."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from acme_qsm.agents import acme as acme_agents
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv
from launchers import command_line
from launchers import local

METRICS = {
  "acme_sac": ["actor_loss", "critic_loss", "alpha"],
  "acme_td3": ["policy_loss", "critic_loss", "twin_critic_loss"],
}


def _parse(*argv):
  return command_line.parse(command_line.Arguments, [*argv])


@pytest.mark.parametrize("agent", acme_agents.CONFIGS)
def test_they_have_flags_of_their_own(agent):
  arguments = _parse(
    *("--agent", agent, "--task", "walker:walk", "--seed", "3"),
    *("--hidden_layer_sizes", "32", "16", "--discount", "0.9"),
  )
  assert arguments.config == acme_agents.CONFIGS[agent](
    hidden_layer_sizes=(32, 16), discount=0.9
  )
  assert arguments.directory == f"runs/{agent}/walker_walk/seed_3"


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--agent", "td3"], r"Unknown agent 'td3'; did you mean acme_td3\?"),
    (["--agent", "acme_sca"], "did you mean acme_sac"),
    (["--agent", "nonsense"], r"one of .*'qsm'.*'acme_sac', 'acme_td3'\]"),
    (
      ["--agent", "acme_sac", "--num_denoising_steps", "5"],
      "--num_denoising_steps is a setting of qsm, .* and dipo, not of acme_sac",
    ),
    (
      ["--agent", "acme_td3", "--tau", "0.1"],
      "--tau is a setting of acme_sac, not of acme_td3",
    ),
    (
      ["--hidden_layer_sizes", "16"],
      "is a setting of acme_sac and acme_td3, not of qsm",
    ),
    (
      ["--agent", "acme_sac", "--preset", "paper"],
      r"Unknown preset 'paper'; one of \['default'\]",
    ),
    (
      ["--agent", "acme_td3", "--sigma", "-1"],
      r"AcmeTD3Config\.sigma must be at least 0, got -1\.0",
    ),
    (
      ["--agent", "acme_sac", "--replay", "embedded"],
      "replay must be reverb with --agent acme_sac",
    ),
    (
      ["--agent", "acme_td3", "--num_seeds", "2"],
      "num_seeds must be 1 with --agent acme_td3",
    ),
    (
      ["--agent", "acme_sac", "--num_envs", "2"],
      "num_envs must be 1 with --agent acme_sac",
    ),
  ],
)
def test_wrong_input_is_refused_before_any_work(
  tmp_path, capfd, arguments, message
):
  workdir = tmp_path / "run"
  assert local.main([*arguments, "--workdir", str(workdir)]) == 2
  error = capfd.readouterr().err
  assert re.search(f"^Error: .*{message}", error), error
  assert error.count("\n") == 1
  assert not workdir.exists()


@pytest.mark.parametrize("launcher", ["local", "distributed"])
def test_without_acme_its_extra_is_named(tmp_path, launcher):
  workdir = tmp_path / "run"
  missing = ["acme", "gym_notices", "launchpad", "reverb", "tensorflow"]
  code = f"""
import sys
sys.modules.update(dict.fromkeys({missing}))
from launchers import {launcher} as launcher
sys.exit(launcher.main(["--agent", "acme_sac", "--workdir", {str(workdir)!r}]))
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith(
    "Error: The agent acme_sac needs the package 'acme': install the extra "
    "`acme`"
  )
  assert done.stderr.count("\n") == 1
  assert not workdir.exists()


@pytest.mark.acme
@pytest.mark.parametrize(
  "agent", [pytest.param("acme_sac", marks=pytest.mark.slow), "acme_td3"]
)
def test_an_agent_trains_and_goes_on(tmp_path, capfd, small_arguments, agent):
  workdir = tmp_path / "run"
  checkpoints = checkpointing.Checkpointer(workdir / "checkpoints")

  def run(num_steps, *more):
    code = local.main(
      [
        *(*small_arguments(agent), "--agent", agent),
        *("--workdir", str(workdir), "--num_steps", str(num_steps), *more),
      ]
    )
    output = capfd.readouterr()
    assert code == 0, output.err
    checkpoint = checkpoints.latest()
    assert checkpoint.metadata["actor_steps"] == num_steps
    steps = checkpoint.metadata["counter"]["counts"]["learner_steps"]
    learner = dict(np.load(checkpoint.path / "learner.npz"))
    counts = {int(v) for name, v in learner.items() if name.endswith("count")}
    # TD3 updates its policy at every other step, from the first on.
    delayed = {(steps + 1) // 2} if agent == "acme_td3" else set()
    assert counts == {steps} | delayed
    return steps, output.out

  steps, _ = run(300)
  # One per transition from the 200th on; the last few may be on their way.
  assert 300 - 200 + 1 - 10 <= steps <= 300 - 200 + 1
  more_steps, output = run(400, "--num_eval_episodes", "0")
  assert f"300 environment steps, {steps:,} learner steps" in output
  # What was on its way twice, in half the limiter's window, is lost.
  assert steps + 100 - 10 - 2 * (13 + 1) <= more_steps <= 400 - 200 + 1
  logged = read_csv(workdir / "logs" / "learner.csv")
  for name in METRICS[agent]:
    assert np.isfinite(logged[name]).all(), name
  config = json.loads((workdir / "config.json").read_text())
  assert config["agent"] == agent
  assert config["config"]["hidden_layer_sizes"] == [16]
  assert (workdir / "learning_curve.png").exists()

  other = ["--hidden_layer_sizes", "8", "--workdir", str(workdir)]
  assert local.main([*small_arguments(agent), "--agent", agent, *other]) == 2
  error = capfd.readouterr().err
  assert "its config.hidden_layer_sizes is [16], not [8]" in error


@pytest.mark.acme
@pytest.mark.slow
def test_an_agent_in_many_processes(tmp_path, launch):
  # With SAC: see tests/agents/acme/run_test.py.
  run = launch(
    tmp_path / "run",
    *("--agent", "acme_td3", "--num_actors", "1", "--num_steps", "400"),
  )
  assert run.wait() == 0, run.describe()
  status = run.status()
  acted = status["counts"]["actor_steps"]
  assert acted >= 400
  # All that its inserts allow for, but for what the dataset's workers hold.
  steps = status["counts"]["learner_steps"]
  assert (acted - 200) - 2 * 13 <= steps <= (acted - 200) + 20
  checkpoint = run.checkpoints.latest()
  assert checkpoint.metadata["actor_steps"] == acted
  evaluations = read_csv(run.workdir / "logs" / "evaluator.csv")
  assert evaluations["actor_steps"][-1] == acted
