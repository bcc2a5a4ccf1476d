"""Every method by the command line: it learns, goes on, and acts."""

import jax
import numpy as np
import pytest

import acme_qsm
from acme_qsm import environments
from acme_qsm import methods
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.specs import make_environment_spec
from launchers import command_line
from launchers import local

VARIANTS = [*((agent,) for agent in methods.METHODS), ("qsm", "--langevin")]
of_variants = pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)


@pytest.fixture
def parse(small_arguments):
  """Reads the command line of a small run of a variant."""

  def parse(variant, *more):
    agent, *flags = variant
    return command_line.parse(
      command_line.Arguments,
      [*small_arguments(agent), "--agent", agent, *flags, *more],
    )

  return parse


_OF_WEIGHTS = (
  "boltzmann_temperature",
  "effective_sample_size",
  "largest_weight",
  "weight_kl",
  *(f"weight_kl_{third}_noise" for third in ("low", "mid", "high")),
)
METRICS = {
  "qsm": ("denoiser_loss", "action_gradient_size"),
  "sdac": ("denoiser_loss", *_OF_WEIGHTS),
  "idem": ("denoiser_loss", "target_size", "gradient_share", *_OF_WEIGHTS),
  "dpmd": ("denoiser_loss", *_OF_WEIGHTS),
  "qvpo": ("denoiser_loss", "advantage", "random_action_weight"),
  "dipo": ("denoiser_loss", "moved_distance"),
  "gaussian": ("policy_loss", "entropy", "entropy_temperature"),
}


def check_metrics(workdir, agent):
  """Raises AssertionError unless the log has what the method measures."""
  logged = read_csv(workdir / "logs" / "learner.csv")
  names = (*METRICS[agent], "action_spread", "q_value")
  for name in (*names, "saturated_actions", "critic_loss"):
    assert np.all(np.isfinite(logged[name])), name


def check_acting(checkpoint, config):
  """Raises AssertionError unless the checkpoint's policy balances a pole."""
  environment = environments.make("cartpole:balance", 0)
  networks = acme_qsm.make_networks(make_environment_spec(environment), config)
  core = acme_qsm.make_learner_core(networks, config)
  state = checkpoint.load("learner", core.init(jax.random.key(0)))
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


@of_variants
def test_a_method_learns_goes_on_and_acts(
  variant, parse, small_arguments, tmp_path, capfd
):
  agent, *flags = variant
  workdir = tmp_path / "run"
  checkpoints = checkpointing.Checkpointer(workdir / "checkpoints")

  def run(num_steps):
    arguments = [
      *(*small_arguments(agent), "--num_eval_episodes", "0"),
      *("--agent", agent, *flags, "--replay", "embedded"),
      *("--workdir", str(workdir), "--num_steps", str(num_steps)),
    ]
    code = local.main(arguments)
    output = capfd.readouterr()
    assert code == 0, output.err
    checkpoint = checkpoints.latest()
    assert checkpoint.metadata["actor_steps"] == num_steps
    learner = dict(np.load(checkpoint.path / "learner.npz"))
    steps = checkpoint.metadata["counter"]["counts"]["learner_steps"]
    assert learner[".steps"] == steps
    return steps, learner, output.out

  # One learner step for each transition from the 200th on.
  steps, before, _ = run(230)
  assert steps == 230 - 200 + 1
  more_steps, after, output = run(250)
  assert f"230 environment steps, {steps:,} learner steps" in output
  assert more_steps == steps + 20
  assert before.keys() == after.keys()
  weights = [name for name in after if name.endswith("['w']")]
  assert len(weights) > 5
  for name in weights:
    assert np.all(np.isfinite(after[name])), name
    # Nothing but what is never trained stays as it was.
    assert not np.array_equal(before[name], after[name]), name
  check_metrics(workdir, agent)
  check_acting(checkpoints.latest(), parse(variant).config)


@pytest.mark.acme
@of_variants
def test_a_method_goes_to_other_processes(variant, parse, tmp_path):
  import cloudpickle

  from acme_qsm.distributed import program

  arguments = parse(variant, "--workdir", str(tmp_path / "run"))
  plan = program.plan_experiment(command_line.make_experiment(arguments), 1)
  run = cloudpickle.loads(plan.run)
  assert run.experiment.builder.config == arguments.config
  networks = run.experiment.network_factory(run.environment_spec)
  core = acme_qsm.make_learner_core(networks, arguments.config)
  jax.eval_shape(core.init, jax.random.key(0))


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


@pytest.mark.slow
@pytest.mark.parametrize(
  ("agent", "launcher", "more", "kill"),
  [
    # Its state has more than parameters.
    pytest.param(
      *("dpmd", "distributed", ["--num_actors", "1"], kill_in_many_processes),
      marks=[pytest.mark.acme, pytest.mark.launchpad],
      id="dpmd distributed",
    ),
    # What replay holds changes there.
    pytest.param(
      *("dipo", "local", ["--checkpoint_minutes", "0.01"], kill_in_one_process),
      id="dipo local",
    ),
  ],
)
def test_a_method_is_killed_and_goes_on(
  launch, parse, tmp_path, agent, launcher, more, kill
):
  num_steps = 2_000
  arguments = ["--agent", agent, "--num_steps", str(num_steps), *more]
  saved = kill(launch(tmp_path / "run", *arguments, launcher=launcher))
  steps = saved.metadata["actor_steps"]
  assert steps < num_steps
  run = launch(tmp_path / "run", *arguments, launcher=launcher)
  assert run.wait() == 0, run.describe()
  assert f"{steps:,} environment steps" in run.output.read_text()
  latest = run.checkpoints.latest()
  assert latest is not None
  # In many processes, what actors do until they hear of the end comes on top.
  assert latest.metadata["actor_steps"] >= num_steps
  check_metrics(run.workdir, agent)
  check_acting(latest, parse((agent,)).config)
