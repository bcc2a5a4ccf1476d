"""Every method in a run of many processes: killed, resumed, and acting."""

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

NUM_STEPS = 2_000


@pytest.mark.slow
@pytest.mark.parametrize("agent", methods.METHODS)
def test_a_method_is_killed_and_goes_on(
  launch, small_arguments, tmp_path, agent
):
  arguments = [
    *("--agent", agent, "--task", "cartpole:balance"),
    *("--num_actors", "1", "--num_steps", str(NUM_STEPS)),
  ]
  run = launch(tmp_path / "run", *arguments)
  checkpoints = checkpointing.Checkpointer(run.workdir / "checkpoints")
  run.wait_until(lambda: run.count() > 500 and checkpoints.latest() is not None)
  run.processes()["learner"].kill()
  run.wait_until(lambda: run.status()["nodes"]["learner"]["restarts"] == 1)
  # The launcher with all that it started, as a machine that goes down.
  saved = checkpoints.latest()
  run.end()

  run = launch(tmp_path / "run", *arguments)
  assert saved is not None
  run.wait_until(lambda: run.count() >= saved.metadata["actor_steps"])
  assert run.wait() == 0, run.describe()
  latest = checkpoints.latest()
  assert latest is not None
  assert latest.metadata["actor_steps"] == NUM_STEPS
  logged = read_csv(run.workdir / "logs" / "learner.csv")
  names = (*methods.METHODS[agent].metrics, "action_spread", "q_value")
  for name in (*names, "saturated_actions", "critic_loss"):
    assert np.all(np.isfinite(logged[name])), name

  # It acts from its checkpoint.
  config = command_line.parse(
    command_line.Arguments, [*small_arguments(agent), "--agent", agent]
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
