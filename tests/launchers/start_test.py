"""How soon a command line answers: what it does not load before it does."""

import subprocess
import sys

import pytest

PROGRAM = """
import importlib
import sys

launcher = importlib.import_module(sys.argv[1])
for arguments in eval(sys.argv[2]):
  try:
    code = launcher.main(arguments)
  except SystemExit as error:
    code = error.code
  assert code == (0 if "--help" in arguments else 2), (arguments, code)
slow = ("acme", "dm_control", "haiku", "jax", "launchpad", "matplotlib")
slow = (*slow, "reverb", "tensorflow")
loaded = [name for name in slow if name in sys.modules]
assert not loaded, loaded
"""
OF_RUNS = [
  ["--help"],
  ["--agent", "sdac", "--preset", "reference", "--help"],
  ["--no_such_flag", "1"],
  ["--agent", "acme_sac", "--help"],
  ["--agent", "acme_sac", "--num_steps", "0"],
  ["--agent", "acme_td3", "--eval_every", "0"],
  ["--agent", "acme_td3", "--sigma", "-1"],
  ["--agent", "nobody"],
  ["--preset", "nothing"],
  ["--task", "cartpole:swing"],
  ["--action_repeat", "0"],
  ["--discount", "2"],
  ["--noise_schedule", "cosine", "--beta_end", "1"],
  ["--num_steps", "0"],
  ["--seed", "-1"],
  ["--max_checkpoints", "0"],
  ["--eval_every", "0"],
  ["--num_eval_episodes", "-1"],
]


@pytest.mark.parametrize(
  ("launcher", "commands"),
  [
    ("local", [*OF_RUNS, ["--num_envs", "0"]]),
    ("distributed", [*OF_RUNS, ["--num_actors", "0"]]),
    (
      "toys",
      [["--help"], ["gridworld", "--help"], ["modes", "--seed", "-1"]],
    ),
    ("benchmark", [["--help"], ["--parts", "everything"]]),
  ],
)
def test_what_takes_long_to_load_is_not_loaded_to_help_or_refuse(
  launcher, commands
):
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM, f"launchers.{launcher}", repr(commands)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
