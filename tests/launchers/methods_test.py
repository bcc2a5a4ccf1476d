"""Every method in either run, with Reverb: killed, resumed, and acting."""

import acme_qsm.acme_compat  # isort: skip

import jax
import numpy as np
import pytest
from acme import specs

import acme_qsm
from acme_qsm import environments
from acme_qsm import methods
from acme_qsm.experiments import command_line
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv

pytestmark = pytest.mark.acme

NUM_STEPS = 2_000


def kill_in_many_processes(run):
  """Kills the learner, and then the launcher with all that it started."""
  run.wait_until(
    lambda: run.count() > 500 and run.checkpoints.latest() is not None
  )
  run.processes()["learner"].kill()
  run.wait_until(lambda: run.status()["nodes"]["learner"]["restarts"] == 1)
  saved = run.checkpoints.latest()
  run.end()
  return saved


def kill_in_one_process(run):
  """Kills the process once it has learnt and saved."""

  def saved():
    try:
      return run.checkpoints.latest()
    except (OSError, checkpointing.CheckpointError):
      return None  # It was replaced while it was looked at.

  run.wait_until(lambda: (s := saved()) and s.metadata["actor_steps"] > 500)
  run.end()
  return run.checkpoints.latest()


# `local` on Reverb is `run_experiment` with a builder, in the form of later
# Acme's: see tests/agents/builder_test.py for what that does of its own.
ENGINES = {
  "distributed": (
    "distributed",
    ["--num_actors", "1"],
    kill_in_many_processes,
  ),
  "local": (
    "local",
    ["--replay", "reverb", "--checkpoint_minutes", "0.01"],
    kill_in_one_process,
  ),
  "embedded": (
    "local",
    ["--replay", "embedded", "--checkpoint_minutes", "0.01"],
    kill_in_one_process,
  ),
}
VARIANTS = [*((agent,) for agent in methods.METHODS), ("qsm", "--langevin")]
CASES = [
  *(
    (variant, engine)
    for variant in VARIANTS
    for engine in ("distributed", "local")
  ),
  # What replay holds changes there.
  (("dipo",), "embedded"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("variant", "engine"),
  CASES,
  ids=[f"{' '.join(variant)} {engine}" for variant, engine in CASES],
)
def test_a_method_is_killed_and_goes_on(
  launch, small_arguments, tmp_path, variant, engine
):
  agent, *flags = variant
  launcher, of_engine, kill = ENGINES[engine]
  arguments = [
    *("--agent", agent, "--num_steps", str(NUM_STEPS)),
    *(*flags, *of_engine),
  ]
  saved = kill(launch(tmp_path / "run", *arguments, launcher=launcher))
  steps = saved.metadata["actor_steps"]
  assert steps < NUM_STEPS
  run = launch(tmp_path / "run", *arguments, launcher=launcher)
  assert run.wait() == 0, run.describe()
  assert f"{steps:,} environment steps" in run.output.read_text()
  latest = run.checkpoints.latest()
  assert latest is not None
  assert latest.metadata["actor_steps"] == NUM_STEPS
  logged = read_csv(run.workdir / "logs" / "learner.csv")
  names = (*methods.METHODS[agent].metrics, "action_spread", "q_value")
  for name in (*names, "saturated_actions", "critic_loss"):
    assert np.all(np.isfinite(logged[name])), name

  # It acts from its checkpoint.
  config = command_line.parse(
    command_line.Arguments,
    [*small_arguments(agent), "--agent", agent, *flags],
  ).config
  environment = environments.make("cartpole:balance", 0)
  networks = acme_qsm.make_networks(
    specs.make_environment_spec(environment), config
  )
  core = acme_qsm.make_learner_core(networks, config)
  state = latest.load("learner", core.init(jax.random.key(0)))
  policy = jax.jit(acme_qsm.make_policy(networks, config, evaluation=True))
  timestep, returned = environment.reset(), 0.0
  for i in range(50):
    action = policy(
      core.policy_params(state),
      jax.random.key(i),
      timestep.observation[None],
    )
    timestep = environment.step(np.asarray(action[0]))
    returned += timestep.reward
  # A balanced pole is worth one per step.
  assert returned > 10.0
