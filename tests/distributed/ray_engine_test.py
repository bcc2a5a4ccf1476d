"""What each process asks of Ray, without any Ray."""

import dataclasses
import pickle

import pytest

from acme_qsm.distributed import program
from acme_qsm.distributed.coordination.run_coordinator import CoordinatorConfig
from acme_qsm.distributed.engines import ray_engine
from acme_qsm.distributed.plan import Plan
from acme_qsm.experiments.config import ExperimentError


def make_plan(num_actors=2, *, evaluates=True):
  return Plan(
    coordinator=CoordinatorConfig(
      num_actors=num_actors,
      max_actor_steps=10,
      evaluates=evaluates,
      key=b"key",
      host="127.0.0.1",
      checkpointing=None,
      description={},
    ),
    run=b"",
    log_folder=None,
  )


def make_machine(cpus, gpus=0.0, memory=10**9):
  return {"CPU": cpus, "GPU": gpus, "memory": memory}


def test_only_the_learner_asks_for_a_gpu_and_only_where_there_is_one():
  machines = [make_machine(8.0, 1.0), make_machine(8.0)]
  options = ray_engine._share_out(make_plan(), 10**6, machines)
  assert set(options) == {
    *("replay", "learner", "evaluator"),
    *("actor_0", "actor_1"),
  }
  gpus = {name: asked.get("num_gpus", 0) for name, asked in options.items()}
  assert gpus.pop("learner") == 1
  assert set(gpus.values()) == {0}
  assert {asked["num_cpus"] for asked in options.values()} == {1}
  options = ray_engine._share_out(make_plan(), 10**6, machines[1:])
  assert options["learner"]["num_gpus"] == 0


@pytest.mark.acme
def test_replay_asks_for_the_memory_that_it_takes_when_full(
  make_experiment, small_config
):
  num_transitions = 100_000
  config = dataclasses.replace(small_config, max_replay_size=num_transitions)
  plan = program.plan_experiment(
    make_experiment(config=config), 1, num_eval_episodes=0
  )
  options = ray_engine._share_out(
    plan, pickle.loads(plan.run).replay_bytes(), [make_machine(8.0)]
  )
  # A transition is 28 bytes of data; what Reverb takes for it was measured, as
  # `replay/reverb_server_test.py` does.
  assert 1_500 < options["replay"]["memory"] / num_transitions < 1_700
  assert "evaluator" not in options


def test_replay_that_fits_on_no_machine_is_an_error():
  with pytest.raises(ExperimentError, match=r"5\.0 GB .* than 1\.0 GB"):
    ray_engine._share_out(
      make_plan(),
      5 * 10**9,
      [make_machine(8.0), make_machine(1.0, memory=10**6)],
    )


@pytest.mark.parametrize(
  ("num_processes", "cores", "share"),
  [
    (5, [8.0], 1.0),
    (5, [2.0], 1 / 3),
    (5, [2.0, 2.0, 2.0], 1.0),
    # Six cores, but five and a half of them cannot be used by six.
    (6, [1.5, 1.5, 1.5, 1.5], 1 / 2),
    (7, [0.0, 1.0], 1 / 7),
  ],
)
def test_processes_share_the_cores_that_there_are(num_processes, cores, share):
  asked = ray_engine._largest_share(num_processes, cores)
  assert share - 1e-4 < asked <= share
  # As Ray will count: whole processes on each machine.
  assert sum(int(core / asked + 1e-9) for core in cores) >= num_processes


def test_a_cluster_without_cores_is_an_error():
  with pytest.raises(ExperimentError, match="no CPUs"):
    ray_engine._share_out(make_plan(), 10**6, [make_machine(0.0)])
