"""What each process of a run loads, and what it does without.

TensorFlow, which Reverb loads, takes longer than all else of a start.
"""

import subprocess
import sys

import pytest

PLAN = """
import pickle
from acme_qsm.distributed import program
from acme_qsm.experiments import command_line
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

# By what runs in it: what it does before its work, and what that loads.
PROCESSES = {
  # It finds out whether the networks go with the environment.
  "launcher": (PLAN, {"dm_control", "jax"}),
  "supervisor": (
    "import acme_qsm.distributed.engines.launchpad_nodes",
    {"launchpad"},
  ),
  "process": ("import acme_qsm.distributed.processes.process", set()),
  "coordinator": (
    "import acme_qsm.distributed.coordination.run_coordinator",
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
  "actor": (
    RUN
    + """
import acme_qsm.distributed.nodes.actor
run.parts.policy
""",
    {"jax", "reverb", "tensorflow"},
  ),
  "learner": (
    RUN + "import acme_qsm.distributed.nodes.learner\nrun.parts.networks",
    {"jax", "reverb", "tensorflow"},
  ),
  "replay": (
    RUN + "import acme_qsm.distributed.nodes.replay\nrun.parts.tables()",
    # TensorFlow loads JAX.
    {"jax", "reverb", "tensorflow"},
  ),
}


def run_python(code, *arguments):
  done = subprocess.run(
    [sys.executable, "-c", code, *map(str, arguments)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("plan") / "plan"
  run_python(
    f"import dataclasses\nimport sys\n{PLAN}"
    "pickle.dump(plan, open(sys.argv[1], 'wb'))",
    path,
  )
  return path


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.acme] if loaded else [])
    for name, (_, loaded) in PROCESSES.items()
  ],
)
def test_each_process_loads_what_it_needs(name, plan_file):
  code, loaded = PROCESSES[name]
  code = f"import dataclasses\nimport pickle\nimport sys\n{code}\n{LOADED}"
  printed = run_python(code, plan_file)
  assert set(printed.splitlines()[-1].split()) == loaded
