"""Acme's own SAC, run by our experiments through the adapter."""

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import dataclasses
import functools
import json
import signal
import threading

import launchpad as lp
import numpy as np
import pytest
from acme.agents.jax import sac

from acme_qsm import experiments
from acme_qsm.agents.acme import adapter
from acme_qsm.experiments.records import checkpointing
from acme_qsm.experiments.records.loggers import read_csv

pytestmark = pytest.mark.acme

# What a run may take, in seconds: far more than it does.
DEADLINE = 240.0
SMALL_CONFIG = sac.SACConfig(
  batch_size=8,
  samples_per_insert=8,
  min_replay_size=32,
  max_replay_size=1_000,
)


@pytest.fixture
def make_sac_experiment(make_experiment):
  """A function that makes a small experiment with SAC."""

  def make(num_steps, config=SMALL_CONFIG, **kwargs):
    return dataclasses.replace(
      make_experiment(num_steps, **kwargs),
      builder=adapter.AcmeBuilder(
        functools.partial(sac.SACBuilder, config),
        lambda networks, environment_spec, evaluation: (
          sac.apply_policy_and_sample(networks, eval_mode=evaluation)
        ),
      ),
      network_factory=lambda spec: sac.make_networks(spec, (16,)),
    )

  return make


def _load(path):
  """The latest checkpoint's metadata and the learner's arrays by name."""
  checkpoint = checkpointing.Checkpointer(path / "checkpoints").latest()
  return checkpoint.metadata, dict(np.load(checkpoint.path / "learner.npz"))


def _count_updates(learner):
  """The gradient steps that each optimiser has made."""
  return {int(v) for name, v in learner.items() if name.endswith("count")}


def test_trains_and_goes_on_from_its_checkpoint(tmp_path, make_sac_experiment):
  path = tmp_path / "run"
  experiments.run_experiment(
    make_sac_experiment(90), eval_every=40, num_eval_episodes=1
  )
  metadata, learner = _load(path)
  assert metadata["actor_steps"] == 90
  steps = metadata["counter"]["counts"]["learner_steps"]
  # One step per transition from the 32nd on; the last few may still have been
  # on their way to replay.
  assert 90 - 32 + 1 - 10 <= steps <= 90 - 32 + 1
  assert _count_updates(learner) == {steps}
  logs = read_csv(path / "logs" / "learner.csv")
  assert logs["learner_steps"][0] == 1
  assert np.isfinite(logs["critic_loss"]).all()
  evaluations = read_csv(path / "logs" / "evaluator.csv")["actor_steps"]
  np.testing.assert_array_equal(evaluations, [40, 80, 90])

  # Nothing is left to do: this only loads and saves what there is.
  experiments.run_experiment(
    make_sac_experiment(90), eval_every=40, num_eval_episodes=0
  )
  for name, array in _load(path)[1].items():
    np.testing.assert_array_equal(array, learner[name])

  experiments.run_experiment(
    make_sac_experiment(190), eval_every=40, num_eval_episodes=0
  )
  metadata, resumed = _load(path)
  assert metadata["actor_steps"] == 190
  more_steps = metadata["counter"]["counts"]["learner_steps"]
  # What was on its way twice, in half the limiter's window, is lost.
  lost = 2 * (13 + 1)
  assert steps + 100 - 10 - lost <= more_steps <= 190 - 32 + 1
  assert _count_updates(resumed) == {more_steps}
  weights = [name for name in learner if name.endswith("['w']")]
  assert len(weights) > 10
  for name in weights:
    assert not np.array_equal(learner[name], resumed[name]), name

  other = dataclasses.replace(SMALL_CONFIG, tau=0.5)
  with pytest.raises(experiments.ExperimentError, match=r"tau is 0\.005"):
    experiments.run_experiment(make_sac_experiment(190, other))


@pytest.fixture
def _signals_as_before():
  """Launchpad leaves handlers of its own, which would end later tests."""
  numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM)
  handlers = {number: signal.getsignal(number) for number in numbers}
  yield
  for number, handler in handlers.items():
    signal.signal(number, handler)


@pytest.mark.usefixtures("_signals_as_before")
@pytest.mark.slow
def test_a_distributed_run(tmp_path, make_sac_experiment):
  path = tmp_path / "run"
  program = experiments.make_distributed_experiment(
    make_sac_experiment(200), num_actors=1, eval_every=100, num_eval_episodes=1
  )
  manager = lp.launch(
    program, launch_type="local_mt", terminal="current_terminal"
  )
  # Should it not end, the test still does.
  waiting = threading.Thread(target=manager.wait, daemon=True)
  waiting.start()
  waiting.join(DEADLINE)
  status = (path / "run_status.json").read_text()
  assert json.loads(status)["phase"] == "finished", status
  metadata, learner = _load(path)
  # The actor goes on until it hears that these are enough.
  acted = metadata["actor_steps"]
  assert acted >= 200
  steps = metadata["counter"]["counts"]["learner_steps"]
  # All samples that its inserts allow for, but for those that the dataset's
  # workers hold.
  assert (acted - 32) - 2 * 13 <= steps <= (acted - 32) + 13
  assert _count_updates(learner) == {steps}
  evaluations = read_csv(path / "logs" / "evaluator.csv")["actor_steps"]
  assert evaluations[-1] == acted
  assert read_csv(path / "logs" / "learner.csv")["learner_steps"][0] == 1
