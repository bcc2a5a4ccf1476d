"""What a run asks of Ray, and who coordinates it: a cluster that only places.

How Ray itself runs such a run is `launchers/ray_test.py`'s to show.
"""

import dataclasses
import math
import pickle
import signal
import sys
import threading
import types

import pytest

from acme_qsm.distributed import program
from acme_qsm.distributed.coordination import rpc
from acme_qsm.distributed.coordination import run_coordinator
from acme_qsm.distributed.coordination.coordinator import Coordinator
from acme_qsm.distributed.coordination.run_coordinator import CoordinatorConfig
from acme_qsm.distributed.engines import ray_engine
from acme_qsm.distributed.engines import ray_resources
from acme_qsm.distributed.plan import Plan
from acme_qsm.experiments import CheckpointingConfig
from acme_qsm.experiments.config import ExperimentError
from acme_qsm.experiments.records import workdir
from acme_qsm.experiments.surroundings import interruption

KEY = b"key"


@dataclasses.dataclass(frozen=True)
class Run:
  """As much of a run as an engine looks at."""

  bytes_of_replay: int

  def replay_bytes(self):
    return self.bytes_of_replay


@dataclasses.dataclass(eq=False)
class Asked:
  """A process that was asked for."""

  options: dict
  arguments: tuple = ()

  @property
  def run(self):
    return self

  def remote(self, *arguments, **unused):
    self.arguments = arguments
    return self


class Cluster(types.ModuleType):
  """Stands for Ray: takes note of what it is asked for."""

  class RayError(Exception):
    """That of a process which Ray cannot run."""

  def __init__(self, *machines, own_address="127.0.0.1", room=math.inf):
    super().__init__("ray")
    self._machines = machines
    self._room = room
    self.asked = []
    self.ended = []
    self.killed = []
    self.is_shut_down = False
    self.exceptions = types.SimpleNamespace(RayError=self.RayError)
    self.util = types.SimpleNamespace(get_node_ip_address=lambda: own_address)

  def init(self, **unused):
    pass

  def shutdown(self):
    self.is_shut_down = True

  def nodes(self):
    return [{"Resources": each, "Alive": True} for each in self._machines]

  def remote(self, unused_class):
    return self

  def options(self, **options):
    if len(self.asked) == self._room:
      raise self.RayError("no more")
    self.asked.append(Asked(options))
    return types.SimpleNamespace(remote=lambda: self.asked[-1])

  def wait(self, work, *, num_returns, timeout):
    return self.ended, [each for each in work if each not in self.ended]

  def get(self, work):
    raise self.RayError("its machine is gone")

  def kill(self, asked, no_restart=True):
    self.killed.append((asked, no_restart))

  def by_name(self):
    return {asked.arguments[0]: asked for asked in self.asked}


def make_machine(cpus, gpus=0.0, memory=10**9):
  return {"CPU": cpus, "GPU": gpus, "memory": memory}


def make_plan(num_actors=2, replay_bytes=10**6, **changes):
  return Plan(
    coordinator=CoordinatorConfig(
      **{
        "num_actors": num_actors,
        "max_actor_steps": 10,
        "evaluates": True,
        "key": KEY,
        "host": "127.0.0.1",
        "checkpointing": None,
        "description": workdir.Description({}),
        **changes,
      }
    ),
    run=pickle.dumps(Run(replay_bytes)),
    log_folder=None,
  )


@pytest.fixture
def start(monkeypatch):
  """A function that starts a run on a cluster of machines."""
  monkeypatch.setattr(run_coordinator, "_STATUS_SECONDS", 0.01)
  monkeypatch.setattr(run_coordinator, "_LEAST_END_SECONDS", 0.0)
  for name in ray_engine._SETTINGS:
    monkeypatch.setenv(name, "0")
  runs = []

  def start(plan, cluster):
    monkeypatch.setitem(sys.modules, "ray", cluster)
    runs.append(ray_engine.RayRun(plan, "auto"))
    return runs[-1]

  yield start
  for run in runs:
    run.client.call("fail", "the test is over")
    run.wait()


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_only_the_learner_gets_a_gpu_and_only_where_there_is_one(start, gpus):
  cluster = Cluster(make_machine(8), make_machine(4, gpus), make_machine(8))
  start(make_plan(), cluster)
  processes = cluster.by_name()
  names = {"replay", "learner", "evaluator", "actor_0", "actor_1"}
  assert set(processes) == names
  for name, each in processes.items():
    learns = name == "learner"
    assert each.options.get("num_gpus", 0) == int(learns and gpus > 0)
    # A core each, since there are enough.
    assert each.options["num_cpus"] == 1.0
    # The others do not see it, whoever they share a machine with.
    variables = each.options["runtime_env"]["env_vars"]
    assert (variables.get("CUDA_VISIBLE_DEVICES") == "") == (not learns)


@pytest.mark.acme
def test_replay_asks_for_the_memory_that_it_takes_when_full(
  start, make_experiment, small_config
):
  num_transitions = 100_000
  config = dataclasses.replace(small_config, max_replay_size=num_transitions)
  plan = program.plan_experiment(
    make_experiment(config=config), 1, num_eval_episodes=0
  )
  cluster = Cluster(make_machine(8))
  start(plan, cluster)
  processes = cluster.by_name()
  # A transition is 28 bytes of data; what Reverb takes for it was measured, as
  # `replay/reverb_server_test.py` does.
  per_transition = processes["replay"].options["memory"] / num_transitions
  assert 1_500 < per_transition < 1_700
  assert "evaluator" not in processes


@pytest.mark.parametrize(
  ("num_actors", "cores", "share"),
  [
    (2, [8.0], 1.0),
    (2, [2.0], 1 / 3),
    (2, [2.0, 2.0, 2.0], 1.0),
    # Six cores, but five and a half of them cannot be used by six.
    (3, [1.5, 1.5, 1.5, 1.5], 1 / 2),
    (4, [0.0, 1.0], 1 / 7),
    (297, [7.0, 0.5], 1 / 40),
  ],
)
def test_processes_share_the_cores_that_there_are(num_actors, cores, share):
  options = ray_resources.share_out(
    make_plan(num_actors), 10**6, [make_machine(core) for core in cores]
  )
  assert len(options) == num_actors + 3
  (asked,) = {each["num_cpus"] for each in options.values()}
  # Ray counts in ten-thousandths.
  assert share - 1e-4 <= asked <= share
  assert sum(int(core / asked + 1e-9) for core in cores) >= num_actors + 3
  # An equal part that is larger is too large for some.
  parts = round(1 / share) - 1
  if parts:
    assert sum(int(core * parts) for core in cores) < num_actors + 3


@pytest.mark.parametrize(
  ("cluster", "message"),
  [
    (
      Cluster(make_machine(8), make_machine(1, memory=10**6)),
      r"5\.0 GB .* than 1\.0 GB",
    ),
    (Cluster(make_machine(0, memory=10**10)), "no CPUs"),
    # An address that is kept for documentation (RFC 5737): not this machine's.
    (
      Cluster(make_machine(8, memory=10**10), own_address="192.0.2.1"),
      r"coordinator cannot listen on 192\.0\.2\.1: ",
    ),
  ],
)
def test_what_cannot_run_is_an_error(start, cluster, message):
  with pytest.raises(ExperimentError, match=message):
    start(make_plan(replay_bytes=5 * 10**9), cluster)
  assert cluster.is_shut_down
  assert not cluster.asked


def test_processes_are_told_of_a_coordinator_that_answers(start, monkeypatch):
  # A port that is chosen before it is bound may be taken by then.
  taken = rpc.Server({}, b"another's", "127.0.0.1")
  monkeypatch.setattr(rpc, "free_port", lambda host: taken.port)
  cluster = Cluster(make_machine(8))
  run = start(make_plan(), cluster)
  for asked in cluster.asked:
    _, _, key, address = asked.arguments
    assert address == run.client.address
    assert rpc.Client(address, key).call("status")["phase"] == "acting"
  taken.stop()


def test_a_start_that_fails_frees_the_work_directory(start, tmp_path):
  config = CheckpointingConfig(directory=str(tmp_path), add_uid=False)
  plan = make_plan(
    checkpointing=config, description=workdir.Description({"task": "point"})
  )
  with pytest.raises(Cluster.RayError):
    start(plan, Cluster(make_machine(8), room=3))
  for thread in threading.enumerate():
    if thread.name == "coordinator":
      thread.join(30)
  run = start(plan, Cluster(make_machine(8)))
  assert run.client.call("status")["phase"] == "acting"


def test_who_cannot_be_run_is_given_up_and_who_is_silent_killed(start):
  cluster = Cluster(make_machine(8))
  run = start(make_plan(), cluster)
  processes = cluster.by_name()
  cluster.ended = [processes["actor_1"]]
  status = run.client.call("status")
  status["nodes"]["learner"] |= {"state": "learning", "silent_seconds": 61.0}
  status["nodes"]["replay"] |= {"state": "serving", "silent_seconds": 59.0}
  status["nodes"]["actor_0"] |= {"state": "done", "silent_seconds": 61.0}
  run.tend(status)
  run.tend(status)  # It is not killed again before it could start.
  assert cluster.killed == [(processes["learner"], False)]
  nodes = run.client.call("status")["nodes"]
  assert nodes["actor_1"]["state"] == "given up"


def test_a_process_leaves_to_the_launcher_what_comes_to_all(monkeypatch):
  monkeypatch.setattr("faulthandler.enable", lambda: None)
  coordinator = Coordinator(1, 10)
  # So that it ends once it has reported.
  coordinator.lost("actor_0", "its environment failed", final=True)
  functions = {
    name: getattr(coordinator, name) for name in ("status", "report")
  }
  server = rpc.Server(functions, KEY, "127.0.0.1")
  before = {
    number: signal.signal(number, signal.SIG_DFL)
    for number in interruption.LAUNCHERS
  }
  try:
    ray_engine._Process().run(
      "actor_0", b"no run", KEY, server.address, host="127.0.0.1", log=None
    )
    left = {signal.getsignal(number) for number in before}
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
    server.stop()
  assert left == {signal.SIG_IGN}
