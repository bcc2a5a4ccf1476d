"""What each process of a run loads, and what it does without.

TensorFlow, which Reverb loads, takes longer than all else of a start.
"""

import subprocess
import sys

import pytest

_OF_ACME = {"launchpad", "reverb", "tensorflow"}
PLAN = """
import pickle
from acme_qsm.distributed import program
from launchers import command_line
from launchers import distributed

arguments = command_line.parse(distributed.Arguments, [], None)
experiment = command_line.make_experiment(arguments)
experiment = dataclasses.replace(experiment, checkpointing=None)
plan = program.plan_experiment(experiment, 1)
"""
RUN = """
with open(sys.argv[1], "rb") as file:
  plan = pickle.load(file)
run = pickle.loads(plan.run)
"""
LOADED = """
heavy = ("acme", "dm_control", "jax", "launchpad", "reverb", "tensorflow")
print(*(name for name in heavy if name in sys.modules))
"""

# By who runs it: what it does before its work, and what that loads. Those that
# load the same do so in one interpreter, one after the other.
PROCESSES = {
  "supervisor": (
    "import acme_qsm.distributed.engines.launchpad_nodes",
    {"launchpad"},
  ),
  "process, coordinator": (
    """
import acme_qsm.distributed.processes.process
import acme_qsm.distributed.coordination.run_coordinator
""",
    set(),
  ),
  "evaluator": (
    RUN
    + """
import acme_qsm.distributed.nodes.evaluator
run.parts.evaluator(run.seeds.evaluator_key(0, 0), object())
run.experiment.environment_factory(0)
""",
    {"dm_control", "jax"},
  ),
  "replay, learner, actor": (
    RUN
    + """
import acme_qsm.distributed.nodes.replay
run.parts.tables()
import acme_qsm.distributed.nodes.learner
run.parts.networks
import acme_qsm.distributed.nodes.actor
run.parts.policy
""",
    # TensorFlow loads JAX.
    {"jax", "reverb", "tensorflow"},
  ),
}


def run_python(code, *arguments):
  """Runs it; returns what it has loaded."""
  code = f"import dataclasses\nimport pickle\nimport sys\n{code}\n{LOADED}"
  done = subprocess.run(
    [sys.executable, "-c", code, *map(str, arguments)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return set(done.stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("plan") / "plan"
  # The launcher finds out whether the networks go with the environment.
  assert run_python(
    f"{PLAN}\npickle.dump(plan, open(sys.argv[1], 'wb'))", path
  ) == {"dm_control", "jax"}
  return path


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.acme] * bool(loaded & _OF_ACME))
    for name, (_, loaded) in PROCESSES.items()
  ],
)
def test_each_process_loads_what_it_needs(name, plan_file):
  code, loaded = PROCESSES[name]
  assert run_python(code, plan_file) == loaded
