"""What each process does at the end of a run, and where others are slow."""

import dataclasses
import json
import sys
import time

import acme_qsm.acme_compat  # noqa: F401  # isort: skip

import cloudpickle
import jax
import numpy as np
import pytest

from acme_qsm import environments
from acme_qsm import QSMBuilder
from acme_qsm.distributed import program
from acme_qsm.distributed.coordination import link
from acme_qsm.distributed.coordination import run_coordinator
from acme_qsm.distributed.nodes import learner
from acme_qsm.distributed.nodes import variables
from acme_qsm.experiments.records.loggers import read_csv
from acme_qsm.replay import reverb_server
from tests.distributed.threaded import ThreadedRun

pytestmark = pytest.mark.acme

NUM_ITEMS = 60


@pytest.fixture
def start_run(request, make_experiment, monkeypatch):
  """A function that starts the coordinator of a run."""
  # All hear soon of what there is to hear of: so nobody need wait for them.
  monkeypatch.setattr(link, "_PERIOD_SECONDS", 0.2)
  monkeypatch.setattr(run_coordinator, "_STATUS_SECONDS", 0.1)
  monkeypatch.setattr(run_coordinator, "_LEAST_END_SECONDS", 0.6)
  monkeypatch.setattr(run_coordinator, "_END_SECONDS", 3.0)
  modules = [
    sys.modules[PointEnvironmentModule]
    for PointEnvironmentModule in (
      make_experiment().environment_factory.__module__,
      request.module.__name__,
    )
  ]
  for module in modules:
    cloudpickle.register_pickle_by_value(module)
  runs = []

  def start(experiment, **kwargs):
    kwargs = {"num_eval_episodes": 0, **kwargs}
    plan = program.plan_experiment(experiment, 1, **kwargs)
    runs.append(ThreadedRun(plan))
    return runs[-1]

  yield start
  for run in runs:
    run.end()
  for module in modules:
    cloudpickle.unregister_pickle_by_value(module)


def insert(run, num_items):
  """Writes transitions into a run's replay."""
  address = run.status()["addresses"]["replay"]
  client = reverb_server.connect(address, run.run.run_id)
  environment = run.run.experiment.environment_factory(0)
  adder = run.run.experiment.builder.make_adder(
    client, run.run.environment_spec
  )
  adder.add_first(environment.reset())
  # As many as there are steps, while the episode does not end.
  for _ in range(num_items):
    timestep = environment.step(np.zeros(1, np.float32))
    if timestep.last():
      adder.reset()
      adder.add_first(environment.reset())
      timestep = environment.step(np.zeros(1, np.float32))
    adder.add(np.zeros(1, np.float32), timestep)
  adder.reset()


class _Poisoned(QSMBuilder):
  """Its learner's state holds a NaN, the first time that it is saved."""

  saved = False

  def make_learner(self, *args):
    learner = super().make_learner(*args)
    save = learner.save

    def poisoned():
      state = save()
      if not _Poisoned.saved:
        _Poisoned.saved = True
        state = jax.tree.map(
          lambda x: x * np.nan if x.dtype == np.float32 else x, state
        )
      return state

    learner.save = poisoned
    return learner


def test_a_nan_at_the_last_save_fails_the_run(
  start_run, make_experiment, small_config
):
  experiment = make_experiment(10)
  run = start_run(
    dataclasses.replace(experiment, builder=_Poisoned(small_config))
  )
  run.start("replay")
  run.start("learner")
  run.act(10, "done")
  assert run.wait() == "failed"
  reason = json.loads((run.run.folder / "run_status.json").read_text())[
    "reason"
  ]
  assert reason.startswith("The learner stopped: ")
  assert "not finite; nothing was saved" in reason
  assert run.checkpoint() is None


def test_a_loss_that_is_not_finite_ends_the_run(
  start_run, make_experiment, point_environment, disturbed, tmp_path
):
  high = tmp_path / "high"

  def raise_rewards(unused_step, timestep):
    reward = np.float32(1e30) if high.exists() else timestep.reward
    return timestep._replace(reward=reward)

  run = start_run(
    make_experiment(
      1_000_000,
      environment_factory=lambda seed: disturbed(
        point_environment(seed), raise_rewards
      ),
      minutes=0.01,
    )
  )
  for name in ("replay", "learner", "actor_0"):
    run.start(name)
  run.wait_until(lambda: run.checkpoint() is not None)
  high.touch()
  assert run.wait() == "failed"
  reason = json.loads((run.run.folder / "run_status.json").read_text())[
    "reason"
  ]
  assert reason.startswith("The learner stopped: ")
  assert "critic_loss" in reason
  # The last one stays as it was.
  (state,) = run.checkpoint().path.glob("learner*")
  with np.load(state) as arrays:
    assert all(np.all(np.isfinite(array)) for array in arrays.values())


def test_without_replay_an_interrupted_run_says_that_nothing_is_saved(
  start_run, make_experiment, monkeypatch
):
  monkeypatch.setattr(learner, "_REPLAY_SECONDS", 0.5, raising=False)
  run = start_run(make_experiment(500))
  run.act(100)
  run.start("learner")
  run.wait_until(lambda: run.node("learner")["state"] == "waiting for replay")
  run.client.call("interrupt", "enough")
  assert run.wait() == "failed"
  reason = json.loads((run.run.folder / "run_status.json").read_text())[
    "reason"
  ]
  assert "the last 100 environment steps could not be saved" in reason


def test_an_interrupted_run_waits_for_replay_to_save(
  start_run, make_experiment
):
  run = start_run(make_experiment(500))
  run.act(100)
  run.start("learner")
  run.wait_until(lambda: run.node("learner")["state"] == "waiting for replay")
  run.client.call("interrupt", "enough")
  assert not run.comes(lambda: run.status()["phase"] != "acting", 1.5)
  run.start("replay")
  assert run.wait() == "interrupted"
  assert run.checkpoint().metadata["actor_steps"] == 100


def test_where_nothing_was_done_nothing_is_waited_for(
  start_run, make_experiment
):
  run = start_run(make_experiment(500))
  run.start("learner")
  run.wait_until(lambda: run.node("learner")["state"] == "waiting for replay")
  run.client.call("interrupt", "enough")
  assert run.wait(10) == "interrupted"
  assert run.checkpoint() is None


class _Held(QSMBuilder):
  """Its learner makes a step only while a file is not there."""

  def __init__(self, config, file):
    super().__init__(config)
    self._file = file

  def make_learner(self, *args):
    learner = super().make_learner(*args)
    step = learner.step

    def held():
      while self._file.exists():
        time.sleep(0.01)
      step()

    learner.step = held
    return learner


@pytest.fixture
def held_run(start_run, make_experiment, small_config, tmp_path):
  """A run whose learner is held with much to learn, and the file for that."""
  file = tmp_path / "held"
  file.touch()
  # Room for all items before the first learner step.
  config = dataclasses.replace(small_config, samples_per_insert_tolerance=1.0)
  run = start_run(
    dataclasses.replace(
      make_experiment(NUM_ITEMS, config), builder=_Held(config, file)
    )
  )
  return run, file


@pytest.mark.slow
def test_a_cut_while_the_last_steps_are_made_loses_none(held_run):
  run, held = held_run
  replay = run.start_process("replay")
  run.wait_until(lambda: "replay" in run.status()["addresses"])
  run.start("learner")
  insert(run, NUM_ITEMS)
  run.wait_until(
    lambda: run.node("learner")["state"] == "waiting for transitions"
  )
  replay.suspend()
  run.act(NUM_ITEMS, "done")
  run.wait_until(lambda: run.status()["phase"] == "learning")
  held.unlink()
  # What was fetched before is learned from; then it waits.
  run.wait_until(lambda: run.node("learner")["state"] == "learning")
  assert not run.comes(lambda: run.node("learner")["state"] != "learning", 5.0)
  replay.resume()
  assert run.wait() == "finished"
  counts = run.checkpoint().metadata["counter"]["counts"]
  assert counts["learner_steps"] == NUM_ITEMS


def test_what_replay_does_not_give_is_not_waited_for(held_run):
  run, held = held_run
  run.start("replay")
  run.wait_until(lambda: "replay" in run.status()["addresses"])
  run.start("learner")
  insert(run, NUM_ITEMS)
  run.wait_until(
    lambda: run.node("learner")["state"] == "waiting for transitions"
  )
  # Somebody else takes the samples of three learner steps.
  address = run.status()["addresses"]["replay"]
  client = reverb_server.connect(address, run.run.run_id)
  assert len(list(client.sample("transitions", num_samples=24))) == 24
  run.act(NUM_ITEMS, "done")
  held.unlink()
  assert run.wait() == "finished"
  counts = run.checkpoint().metadata["counter"]["counts"]
  assert counts["learner_steps"] == NUM_ITEMS - 3


@pytest.mark.slow
def test_an_evaluation_waits_for_parameters_of_its_step(
  start_run, make_experiment, monkeypatch
):
  monkeypatch.setattr(variables, "_VARIABLES_SECONDS", 1.0)
  run = start_run(make_experiment(1000), num_eval_episodes=1, eval_every=10)
  log = run.run.folder / "logs" / "evaluator.csv"
  run.start("replay")
  learner = run.start_process("learner")
  run.start("evaluator")
  run.act(10)
  run.wait_until(log.exists)
  learner.suspend()
  run.act(20)
  run.wait_until(lambda: run.node("evaluator")["state"] == "evaluating")
  run.act(30)
  # With the parameters of ten steps, it would show those of twenty.
  assert not run.comes(lambda: len(read_csv(log)["actor_steps"]) > 1, 5.0)
  learner.resume()
  run.wait_until(lambda: len(read_csv(log)["actor_steps"]) == 2)
  # As far as the run was when they came.
  np.testing.assert_array_equal(read_csv(log)["actor_steps"], [10, 30])


class _Counting:
  """Wraps the environments of a factory and counts those that are open."""

  def __init__(self, make, fails_at):
    self._make = make
    self._fails_at = fails_at
    self.num_made = self.num_closed = 0

  def __call__(self, seed):
    environment = self._make(seed)
    self.num_made += 1
    number, step = self.num_made, environment.step
    num_steps = 0

    def failing_step(action):
      nonlocal num_steps
      num_steps += 1
      if number == 1 and num_steps == self._fails_at:
        raise ConnectionError("the simulator is gone")
      return step(action)

    def close():
      self.num_closed += 1

    environment.step, environment.close = failing_step, close
    return environment


@pytest.mark.slow
def test_environments_are_closed(start_run, make_experiment, point_environment):
  made = []

  def make_environment(seed):
    if not made:
      made.append(_Counting(point_environment, fails_at=7))
    return made[0](seed)

  experiment = make_experiment(60, environment_factory=make_environment)
  run = start_run(experiment, num_eval_episodes=1, eval_every=20)
  # The run's own are of a copy, which was unpickled.
  assert (made[0].num_made, made[0].num_closed) == (1, 1)
  made.clear()
  run.run = dataclasses.replace(run.run, experiment=experiment)
  threads = [
    run.start(name) for name in ("replay", "learner", "evaluator", "actor_0")
  ]
  assert run.wait() == "finished"
  for thread in threads:
    thread.join(30)
  assert made[0].num_made >= 3
  assert made[0].num_closed == made[0].num_made


@pytest.mark.parametrize("wrap", [lambda made: made, environments.adapt])
def test_an_environment_that_gives_what_nobody_can_use_is_replaced(
  start_run, make_experiment, point_environment, disturbed, caplog, wrap
):
  odd = [
    ({"reward": None}, "reward is None at step 7"),
    ({"reward": np.zeros(3)}, "reward has shape (3,) at step 7"),
    ({"reward": 1e39}, "reward is not finite in float32 at step 7"),
    # In whose words depends on who sees it first.
    ({"observation": np.zeros(3)}, "shape (3,) at step 7 of the episode; the"),
  ]
  made = []

  def make_environment(seed):
    number = len(made)
    made.append(seed)

    def disturb(step, timestep):
      if step == 7 and number < len(odd):
        return timestep._replace(**odd[number][0])
      return timestep

    return wrap(disturbed(point_environment(seed), disturb, endless=False))

  experiment = make_experiment(60, environment_factory=make_environment)
  run = start_run(experiment)
  made.clear()
  run.run = dataclasses.replace(run.run, experiment=experiment)
  for name in ("replay", "learner", "actor_0"):
    run.start(name)
  assert run.wait() == "finished"
  assert len(made) == len(odd) + 1
  errors = [
    str(record.exc_info[1])
    for record in caplog.records
    if record.message == "Making a new environment."
  ]
  assert len(errors) == len(odd)
  for error, (_, message) in zip(errors, odd, strict=True):
    assert message in error
    assert "\n" not in error


@pytest.mark.slow
def test_returns_that_do_not_fit_are_warned_of(
  start_run, make_experiment, small_config
):
  config = dataclasses.replace(
    small_config, critic_head="categorical", num_atoms=11, max_value=0.1
  )
  run = start_run(make_experiment(60, config))
  for name in ("replay", "learner", "actor_0"):
    run.start(name)
  assert run.wait() == "finished"
  status = json.loads((run.run.folder / "run_status.json").read_text())
  warnings = [event for event in status["events"] if "Warning: " in event]
  assert len(warnings) == 1
  assert "min_value or raise max_value" in warnings[0]
  # Whatever the learner measures can be shown.
  shown = set(status["nodes"]["learner"]["metrics"])
  assert {"critic_loss", "q_value", "action_spread"} < shown
