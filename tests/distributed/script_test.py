"""A user's own script, which launches a program with Launchpad alone."""

import contextlib
import json
import os
import signal
import sys

import psutil
import pytest

from tests.distributed.launched import Launched

pytestmark = [pytest.mark.acme, pytest.mark.launchpad, pytest.mark.slow]

SCRIPT = """
import json
import multiprocessing
import os
import pathlib
import sys

import jax
import launchpad

from acme_qsm import environments
from acme_qsm import experiments
from acme_qsm import make_networks
from acme_qsm import QSMBuilder
from acme_qsm import QSMConfig

folder = pathlib.Path(sys.argv[1])
config = QSMConfig(
  policy_hidden_sizes=(16,),
  critic_hidden_sizes=(16,),
  batch_size=16,
  samples_per_insert=16,
  min_replay_size=100,
)


def make_networks_and_note_devices(spec):
  variables = ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
  seen = {name: os.environ.get(name) for name in variables}
  devices = [device.platform for device in jax.devices()]
  name = multiprocessing.current_process().name
  seen_file = folder / f"{name}.json"
  if not seen_file.exists():
    seen_file.write_text(json.dumps({**seen, "devices": devices}))
  return make_networks(spec, config)


experiment = experiments.ExperimentConfig(
  builder=QSMBuilder(config),
  network_factory=make_networks_and_note_devices,
  environment_factory=lambda seed: environments.make("cartpole:balance", seed),
  max_num_actor_steps=1_000_000,
  seed=0,
  checkpointing=experiments.CheckpointingConfig(
    directory=str(folder / "run"), add_uid=False, time_delta_minutes=60
  ),
)
if __name__ == "__main__":
  launchpad.launch(
    experiments.make_distributed_experiment(
      experiment, num_actors=2, num_actors_per_node=2, num_eval_episodes=1
    ),
    launch_type=sys.argv[2],
    terminal="current_terminal",
  )
"""


@pytest.fixture
def launch_script(tmp_path):
  """Starts the script; sees to it that nothing of it is left."""
  runs = []

  def launch(launch_type):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, tmp_path, launch_type]
    workdir = tmp_path / "run"
    runs.append(Launched(command, workdir, tmp_path))
    return runs[-1]

  yield launch
  for run in runs:
    run.end()
    # What it started is of its group.
    for process in psutil.process_iter():
      with contextlib.suppress(ProcessLookupError):
        if os.getpgid(process.pid) == run.process.pid:
          os.kill(process.pid, signal.SIGKILL)


def assert_saved(run, steps):
  assert run.status()["phase"] == "interrupted", run.describe()
  assert run.status()["reason"] == "Ctrl-C or SIGTERM"
  saved = run.checkpoints.latest()
  assert saved is not None, run.describe()
  assert saved.metadata["actor_steps"] >= steps


def test_ctrl_c_in_a_script_saves(launch_script, tmp_path, monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  run = launch_script("local_mp")
  run.wait_until(lambda: run.count("learner_steps") > 100)
  steps = run.count()
  processes = run.processes()
  assert set(processes) == {
    *("replay", "learner", "evaluator"),
    *("actor_0", "actor_1"),
  }
  # One process of Launchpad's watches over all.
  assert len({process.ppid() for process in processes.values()}) == 1
  for name in ("actor_0", "actor_1"):
    run.wait_until(lambda name=name: run.node(name)["state"] == "acting")

  # Only the learner sees the accelerator.
  for name in processes:
    seen = json.loads((tmp_path / f"{name}.json").read_text())
    if name == "learner":
      assert seen["CUDA_VISIBLE_DEVICES"] == "7"
      assert seen["JAX_PLATFORMS"] is None
      assert seen["OMP_NUM_THREADS"] is None
    else:
      assert seen["CUDA_VISIBLE_DEVICES"] == ""
      assert seen["JAX_PLATFORMS"] == "cpu"
      assert seen["OMP_NUM_THREADS"] == "1"
      assert set(seen["devices"]) == {"cpu"}

  # As a terminal does it: to all at once.
  os.killpg(run.process.pid, signal.SIGINT)
  run.wait(120)
  assert_saved(run, steps)
  assert run.processes() == {}


@pytest.mark.parametrize(
  ("launch_type", "number"),
  [("local_mp", signal.SIGTERM), ("local_mt", signal.SIGUSR1)],
)
def test_a_signal_to_a_script_saves(launch_type, number, launch_script):
  run = launch_script(launch_type)
  run.wait_until(lambda: run.count("learner_steps") > 20)
  steps = run.count()
  run.process.send_signal(number)
  run.wait(120)
  assert_saved(run, steps)
  assert run.processes() == {}
