"""Acme's own loop over an environment's steps, with our actor."""

import acme_qsm.acme_compat  # isort: skip

import acme
import jax
import numpy as np
import pytest
from acme.utils import loggers

import acme_qsm
from acme_qsm import specs
from acme_qsm import types
from acme_qsm.replay import embedded
from tests.environments.transitions import Recorder
from tests.experiments.transitions_test import Scripted

pytestmark = pytest.mark.acme


@pytest.fixture
def make_loop(make_config):
  """Makes the loop, what observes it and replay."""

  def make(environment, n_step):
    config = make_config(n_step=n_step, max_replay_size=100)
    spec = specs.make_environment_spec(environment)
    networks = acme_qsm.make_networks(spec, config)
    builder = acme_qsm.DiffusionBuilder(config)
    core = acme_qsm.make_learner_core(networks, config)
    params = core.policy_params(core.init(jax.random.key(0)))

    class Source:
      def get_variables(self, names):
        return [params for _ in names]

    replay = builder.make_embedded_replay(spec)
    actor = builder.make_actor(
      jax.random.key(1),
      builder.make_policy(networks),
      spec,
      Source(),
      builder.make_adder(replay, spec),
    )
    recorder = Recorder(1, n_step)
    loop = acme.EnvironmentLoop(
      environment,
      actor,
      should_update=False,
      observers=[recorder],
      logger=loggers.NoOpLogger(),
    )
    return loop, recorder, replay

  return make


@pytest.mark.parametrize("n_step", [3, 7])
def test_transitions_are_those_of_the_episodes(tmp_path, make_loop, n_step):
  """Though the environment writes into the same arrays at each step."""
  loop, recorder, replay = make_loop(Scripted(0), n_step)
  for length in (1, 2, 5, 3):
    assert loop.run_episode()["episode_length"] == length
  replay.save(tmp_path / "replay")
  np.testing.assert_allclose(
    embedded.read(tmp_path / "replay").rows(),
    [row for _, row in recorder.rows[0]],
    rtol=1e-6,
  )


class Shrinking(Scripted):
  """Its third step shows less than the spec says."""

  def step(self, action):
    timestep = super().step(action)
    if timestep.observation[1] == 3:
      return timestep._replace(observation=np.zeros(2))
    return timestep


def test_what_nobody_can_use_is_named(make_loop):
  loop, _, replay = make_loop(Shrinking(0, shift=2), 3)
  with pytest.raises(
    types.InvalidValueError,
    match=r"^observation has shape \(2,\) at step 3 of the episode; the spec",
  ):
    loop.run_episode()
  assert replay.size() == 2
