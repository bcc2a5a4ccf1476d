"""What tests share: small agents, specs, environments, runs.

The core's tests, which do without this, have a conftest of their own.
"""

import dataclasses
import gc
import importlib.util
import signal
import sys

import tests.caches  # noqa: F401  # isort: skip

import dm_env
import jax
import numpy as np
import pytest
from dm_env import specs

import acme_qsm
from acme_qsm import make_networks
from acme_qsm import QSMBuilder
from acme_qsm import QSMConfig
from acme_qsm.experiments import CheckpointingConfig
from acme_qsm.experiments import ExperimentConfig
from tests.selection import pytest_collection_modifyitems
from tests.selection import pytest_ignore_collect
from tests.selection import pytest_runtest_protocol
from tests.skips import pytest_addoption
from tests.skips import pytest_sessionfinish
from tests.skips import pytest_terminal_summary

collect_ignore = []
if importlib.util.find_spec("envpool") is None:
  # `install_test.py` runs it where it can be had.
  collect_ignore.append("environments/pool_test.py")

__all__ = [
  "pytest_addoption",
  "pytest_collection_modifyitems",
  "pytest_ignore_collect",
  "pytest_runtest_protocol",
  "pytest_sessionfinish",
  "pytest_terminal_summary",
]


# Almost all the time of tests in this process is the compiler's: halve it.
# Not of processes that they start, where networks may be of their usual sizes:
# a step of those takes eight times as long then.
jax.config.update("jax_disable_most_optimizations", True)

# As in a terminal, where tests run under nohup, too: they send it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_unconfigure():
  """Spares pytest's last look for garbage, among all that tests have left."""
  gc.freeze()


EPISODE_LENGTH = 20
SMALL_CONFIG = QSMConfig(
  policy_hidden_sizes=(16,),
  critic_hidden_sizes=(16,),
  num_denoising_steps=2,
  num_action_candidates=1,
  num_evaluation_candidates=1,
  batch_size=8,
  samples_per_insert=8.0,
  min_replay_size=32,
  max_replay_size=10_000,
  variable_update_period=20,
)


class PointEnvironment(dm_env.Environment):
  """A point on a line, rewarded for being near the middle.

  Attributes:
    bad_step: the environment step (counted from 1 over all episodes) at which
      the reward is `bad_reward`.
  """

  def __init__(self, seed, bad_step=0, bad_reward=np.nan):
    self._random = np.random.RandomState(seed)
    self._bad_step = bad_step
    self._bad_reward = bad_reward
    self._total_steps = 0
    self._step = 0
    self._position = 0.0

  def _observation(self):
    return np.array([self._position, self._step / EPISODE_LENGTH], np.float32)

  def reset(self):
    self._step = 0
    self._position = self._random.uniform(-1, 1)
    return dm_env.restart(self._observation())

  def step(self, action):
    self._step += 1
    self._total_steps += 1
    self._position = float(np.clip(self._position + 0.1 * action[0], -1, 1))
    reward = np.float32(1.0 - abs(self._position))
    if self._total_steps == self._bad_step:
      reward = np.float32(self._bad_reward)
    if self._step == EPISODE_LENGTH:
      return dm_env.truncation(reward, self._observation(), np.float32(1.0))
    return dm_env.transition(reward, self._observation(), np.float32(1.0))

  def observation_spec(self):
    return specs.Array((2,), np.float32, "observation")

  def action_spec(self):
    return specs.BoundedArray((1,), np.float32, -1.0, 1.0, "action")

  def reward_spec(self):
    return specs.Array((), np.float32, "reward")

  def discount_spec(self):
    return specs.BoundedArray((), np.float32, 0.0, 1.0, "discount")


class Disturbed(dm_env.Environment):
  """An environment whose steps pass through a function.

  Its episodes do not end by themselves where they are endless.
  """

  def __init__(self, environment, disturb, endless=True):
    self._environment = environment
    self._disturb = disturb
    self._endless = endless
    self._num_steps = 0

  def reset(self):
    return self._environment.reset()

  def step(self, action):
    self._num_steps += 1
    timestep = self._environment.step(action)
    if self._endless:
      timestep = timestep._replace(step_type=dm_env.StepType.MID)
    return self._disturb(self._num_steps, timestep)

  def observation_spec(self):
    return self._environment.observation_spec()

  def action_spec(self):
    return self._environment.action_spec()


@pytest.fixture(scope="session")
def make_experiment_in():
  """A function that makes a small experiment, in a directory."""

  def make(
    directory,
    num_steps=100,
    config=SMALL_CONFIG,
    seed=0,
    environment_factory=PointEnvironment,
    minutes=60.0,
    max_to_keep=1,
    make_builder=QSMBuilder,
    **kwargs,
  ):
    return ExperimentConfig(
      builder=make_builder(config),
      network_factory=lambda spec: make_networks(spec, config),
      environment_factory=environment_factory,
      max_num_actor_steps=num_steps,
      seed=seed,
      checkpointing=CheckpointingConfig(
        max_to_keep=max_to_keep,
        directory=str(directory),
        add_uid=False,
        time_delta_minutes=minutes,
      ),
      **kwargs,
    )

  return make


@pytest.fixture
def make_experiment(make_experiment_in, tmp_path):
  """A function that makes a small experiment, in tmp_path / "run"."""

  def make(*args, directory=tmp_path / "run", **kwargs):
    return make_experiment_in(directory, *args, **kwargs)

  return make


@pytest.fixture
def point_environment():
  """The class of those experiments' environment."""
  return PointEnvironment


@pytest.fixture
def disturbed():
  """The class of environments whose steps pass through a function."""
  return Disturbed


@pytest.fixture
def small_config():
  """What those experiments' builders are configured with."""
  return SMALL_CONFIG


@pytest.fixture
def launch(request, make_experiment, tmp_path):
  """A function that starts a run of many processes, for tests with Acme."""
  import cloudpickle

  from acme_qsm.distributed import program as distributed
  from tests.distributed.launched import LaunchedPlan

  # The processes cannot import what tests define.
  modules = [sys.modules[__name__], request.module]
  for module in modules:
    cloudpickle.register_pickle_by_value(module)
  runs = []

  def start(
    environment_factory,
    num_actors=1,
    num_steps=1_000_000,
    num_eval_episodes=0,
    eval_every=400,
    hang_seconds=30.0,
    make_builder=QSMBuilder,
    minutes=0.03,
    **kwargs,
  ):
    experiment = make_experiment(
      num_steps,
      environment_factory=environment_factory,
      minutes=minutes,
      **kwargs,
    )
    plan = distributed.plan_experiment(
      dataclasses.replace(experiment, builder=make_builder(SMALL_CONFIG)),
      num_actors,
      num_eval_episodes=num_eval_episodes,
      eval_every=eval_every,
      hang_seconds=hang_seconds,
    )
    runs.append(LaunchedPlan(plan, tmp_path))
    return runs[-1]

  yield start
  for run in runs:
    run.end()
  for module in modules:
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="session")
def make_config():
  """Makes small configurations, all said except for the fields given."""

  def make(agent="qsm", **fields):
    config = acme_qsm.methods.METHODS[agent].config
    of_denoisers = {
      "time_embedding_size": 4,
      "time_hidden_size": 8,
      "num_denoising_steps": 2,
    }
    return config(
      **{
        "policy_hidden_sizes": (16,),
        "critic_hidden_sizes": (16,),
        **(of_denoisers if hasattr(config, "num_denoising_steps") else {}),
        "num_action_candidates": 1,
        "num_evaluation_candidates": 1,
        "batch_size": 8,
        "min_replay_size": 16,
        "samples_per_insert": 8.0,
        "samples_per_insert_tolerance": 0.1,
        "n_step": 3,
        "discount": 0.5,
        "variable_update_period": 1,
        **fields,
      }
    )

  return make


@pytest.fixture(scope="session")
def make_spec():
  """Makes environment specs, valid except for the specs given."""

  def make(observations=None, actions=None):
    return acme_qsm.EnvironmentSpec(
      observations=observations or specs.Array((2,), np.float32),
      actions=actions or specs.BoundedArray((1,), np.float32, -1.0, 1.0),
      rewards=specs.Array((), np.float32),
      discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
    )

  return make


@pytest.fixture
def serve():
  """Serves tables until the test ends; returns a client. With Acme."""
  servers = []

  def start(*tables):
    import acme_qsm.acme_compat  # noqa: F401  # isort: skip

    import reverb

    server = reverb.Server(list(tables), port=None)
    servers.append(server)
    return reverb.Client(f"localhost:{server.port}")

  yield start
  for server in servers:
    server.stop()
